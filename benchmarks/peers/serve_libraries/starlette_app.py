from handler import score
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route


async def answer(request):
    return Response(score(await request.body()), media_type="application/json")


app = Starlette(routes=[Route("/score", answer, methods=["POST"])])
