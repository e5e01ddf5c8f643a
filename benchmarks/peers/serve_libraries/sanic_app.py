import sys

from handler import score
from sanic import Sanic, raw

app = Sanic("bench")


@app.post("/score")
async def answer(request):
    return raw(score(request.body), content_type="application/json")


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(sys.argv[1]), single_process=True, access_log=False)
