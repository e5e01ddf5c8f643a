import asyncio
import sys

import httptools
import uvloop
from handler import score


class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.parser, self.body = transport, httptools.HttpRequestParser(self), b""

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_body(self, part):
        self.body += part

    def on_message_complete(self):
        answer, self.body = score(self.body), b""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % len(answer) + answer)


async def main():
    await (await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", int(sys.argv[1]))).serve_forever()


uvloop.run(main())
