"""What an instance allocates after a restore lies together: each page it writes is its own."""

from tests.unit.runtimes.snapshots import ASK, spec

# A boot that leaves holes everywhere: every second of many objects of all sizes is dropped.
HOLES = """
kept = [bytes(size) for size in range(1, 2000, 7) for _ in range(20)]
del kept[::2]
"""
SIZES = "[size for size in range(1, 1000, 60) for _ in range(10)]"
PLACES = f"(lambda held: sorted(id(one) for one in held))([bytes(n) for n in {SIZES}])"


def test_new_objects_fill_no_holes_of_the_boot(lab):
    app = lab.app({"app.py": HOLES + ASK})
    _, image = lab.take(app, spec())
    places = lab.restore(app, image, {}).ask(PLACES)
    pages = {place >> 12 for place in places}
    # 80 KiB of objects: 20 pages if they lie side by side, 98 in the holes. Some ten lie in what
    # was freed after the holes were filled, by the restore too.
    assert len(pages) <= 45
