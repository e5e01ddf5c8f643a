import sys

import uvloop
from aiohttp import web
from handler import score


async def answer(request):
    return web.Response(body=score(await request.read()), content_type="application/json")


uvloop.install()
app = web.Application()
app.router.add_post("/score", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None)
