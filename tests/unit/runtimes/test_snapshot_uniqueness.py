"""Two instances of one image share nothing that must be unique: one test per source.

Each source is used at import and in the warm-up, so that its state is in the image.
"""

import pytest
from tests.unit.runtimes.snapshots import ASK, Lab, Restored

SOURCES = """
import email.generator, email.utils, logging, os, random, secrets, sqlite3, tempfile, uuid
import numpy as np

class Holder:
    def __init__(self):
        self.rng = random.Random()
        self.np = np.random.default_rng()
        self.state = np.random.RandomState()
        self.names = tempfile._RandomNameSequence()

class Dice(random.Random):
    sides = 6

def closure():
    rng = random.Random()
    return lambda: rng.random()

class Slots:
    __slots__ = ("rng",)
    def __init__(self): self.rng = random.Random()

holder, rolled, slots, dice = Holder(), closure(), Slots(), Dice()
nested = [{"deep": (random.Random(),)}]
seeds = np.random.SeedSequence()
legacy = np.random.RandomState(7)
philox = np.random.Generator(np.random.Philox())
memory = sqlite3.connect(":memory:")

def draw():
    import tempfile as t
    values = [random.random(), random.gauss(0, 1), holder.rng.gauss(0, 1), holder.np.random(),
        holder.state.normal(), np.random.normal(), next(holder.names), rolled(), slots.rng.random(),
        dice.random(), nested[0]["deep"][0].random(), legacy.normal(), philox.random(),
        uuid.uuid1(), uuid.uuid4(), uuid.uuid6(), uuid.uuid7(), t.mktemp(), secrets.token_hex(),
        email.utils.make_msgid(domain="d"), os.urandom(8), np.random.default_rng().random()]
    for connection in (memory, sqlite3.connect(":memory:")):
        values.append(connection.execute("select random(), randomblob(8)").fetchone())
    return values
draw()
"""


@pytest.fixture(scope="module")
def pair(lab: Lab) -> tuple[Restored, Restored]:
    app = lab.app(SOURCES + ASK.replace('"warm"', '"warm" if asked else draw()'))
    taken, image = lab.take(app)
    assert not taken.findings
    return lab.restore(app, image), lab.restore(app, image)


@pytest.mark.parametrize(
    "source",
    [
        "random.random()",
        "random.getrandbits(64)",
        "random.gauss(0, 1)",  # has a value in store
        "holder.rng.random()",
        "holder.rng.gauss(0, 1)",
        "rolled()",
        "slots.rng.random()",
        "dice.random()",
        "nested[0]['deep'][0].random()",
        "random.Random().random()",
        "random.SystemRandom().random()",
        "secrets.token_hex(16)",
        "os.urandom(16)",
        "np.random.rand()",
        "np.random.randn()",  # has a value in store
        "holder.np.random()",
        "holder.np.integers(1 << 60)",
        "holder.np.spawn(1)[0].random()",
        "holder.state.normal()",
        "holder.state.randint(1 << 30)",
        "legacy.normal()",
        "philox.random()",
        "np.random.default_rng().random()",
        "np.random.default_rng(seeds.spawn(1)[0]).random()",
        "np.random.default_rng(seeds).random()",
        "tempfile.mktemp()",
        "os.path.basename(tempfile.mkstemp()[1])",
        "next(holder.names)",
        "uuid.uuid1()",
        "uuid.uuid1().node",
        "uuid.uuid1().clock_seq",
        "uuid.uuid4()",
        "uuid.uuid6()",
        "uuid.uuid7()",
        "uuid.getnode()",
        "memory.execute('select random()').fetchone()",
        "memory.execute('select hex(randomblob(16))').fetchone()",
        "sqlite3.connect(':memory:').execute('select random()').fetchone()",
        "sqlite3.connect(':memory:').execute('select hex(randomblob(16))').fetchone()",
        "email.utils.make_msgid(domain='d').split('.')[2]",
        "email.generator._make_boundary()",
    ],
)
def test_two_restores_differ_in(pair, source):
    first, second = ([one.ask(source) for _ in range(3)] for one in pair)
    assert not {str(value) for value in first} & {str(value) for value in second}
