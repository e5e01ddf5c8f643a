import sys

from handler import score
from robyn import Response, Robyn

port = int(sys.argv.pop())
app = Robyn(__file__)


@app.post("/score")
async def answer(request):
    return Response(200, {"content-type": "application/json"}, score(request.body))


app.start(host="127.0.0.1", port=port)
