from blacksheep import Application, Content, Request, Response
from handler import score

app = Application()


@app.router.post("/score")
async def answer(request: Request):
    return Response(200, content=Content(b"application/json", score(await request.read())))
