"""The yardstick: the least that Starlette does with a JSON POST, served by uvicorn with uvloop and httptools.

`python -m tests.bench.echo_app PORT` reads a JSON body and answers 201 with JSON, like a submit without a database.
"""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def echo(request: Request) -> JSONResponse:
    """Answer with what came in."""
    return JSONResponse(await request.json(), status_code=201)


app = Starlette(routes=[Route("/echo", echo, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
        log_level="warning", lifespan="off",
    )  # fmt: skip
