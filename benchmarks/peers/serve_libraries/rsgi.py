from handler import score

HEADERS = [("content-type", "application/json")]


class App:
    async def __rsgi__(self, scope, protocol):
        protocol.response_bytes(200, HEADERS, score(await protocol()))


app = App()
