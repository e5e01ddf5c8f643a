from lib.helper import GREETING

print(GREETING)
