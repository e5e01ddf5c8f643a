from lib.deep.more import MORE
from lib.helper import GREETING

print(GREETING, MORE, "from the code")
