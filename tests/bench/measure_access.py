"""What does it cost to know whom a request is from? Single POSTs without a credential, with a key, and with a token.

All three meet one API process, which lets requests without a credential in, in short rounds that take turns: what the
machine does meanwhile hits each of them, and the ratio of neighbours tells more than that of their medians.
"""

from tests.bench.credentials import KEY, OPEN, TOKEN, Credential, Issuer, make_key
from tests.bench.measure_submit import CONNECTIONS
from tests.bench.options import Options
from tests.bench.product import Product, open_product, run_client
from tests.bench.rounds import Round, Rounds
from tests.bench.servers import Servers
from tests.bench.usage import CpuMeter

TURNS = 8  # for each repeat of the other measurements


async def measure(servers: Servers, options: Options) -> dict[str, Rounds]:
    """Rounds of `access open`, `access key` and `access token`."""
    issuer = Issuer(servers)
    try:
        async with open_product(servers, issuer.settings) as product:
            product.start("api")
            credentials = {
                OPEN: Credential("", ""),
                KEY: await make_key(servers, product.environment),
                TOKEN: issuer.token(),
            }
            for credential in credentials.values():
                await _round(product, credential, options.warm_up)
            rounds: dict[str, list[Round]] = {kind: [] for kind in credentials}
            for turn in range(TURNS * options.repeats):
                await product.settle_servers()
                for kind in _in_turn(list(credentials), turn):
                    rounds[kind].append(await _round(product, credentials[kind], options.requests // 2))
    finally:
        issuer.close()
    return {f"access {kind}": Rounds(done) for kind, done in rounds.items()}


def _in_turn(kinds: list[str], turn: int) -> list[str]:
    """Nobody is always the first, nor always behind the same one."""
    first = turn % len(kinds)
    turned = kinds[first:] + kinds[:first]
    return turned if turn // len(kinds) % 2 == 0 else turned[::-1]


async def _round(product: Product, credential: Credential, count: int) -> Round:
    before = await product.last_id()
    meter = CpuMeter(product.pids())
    more = (credential.token,) if credential.token else ()
    answer = await run_client(product.servers, "tests.bench.load", product.port, "single", count, CONNECTIONS, *more)
    cpu = meter.read()
    if (found := await product.connection.fetchval(_STORED, before, credential.principal)) != count:
        raise ValueError(f"{count} tasks were accepted and {found} are stored as those of {credential.principal!r}")
    return Round(
        count, answer["ended_at"] - answer["started_at"], cpu, answer["cpu_seconds"], answer["request_seconds"]
    )


_STORED = "SELECT count(*) FROM tasks WHERE id > $1 AND client_id = $2"
