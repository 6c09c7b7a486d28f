"""Structured text that is made up: JSON, CSV, tables, lists, settings, logs. Regular enough to be learnt exactly."""

import csv
import io
import json

FIRST = (
    "Ada Alan Alice Amir Anna Ben Carla Chen Clara Daniel David Elena Emma Erik Fatima Felix Grace Hana Hugo Ines Ivan "
    "Jack Jane Jonas Julia Karim Kate Laura Leo Lena Linus Lucy Maria Mark Maya Mia Nadia Nina Noah Nora Olga Omar Oscar "
    "Paul Petra Rosa Sam Sara Sofia Tim Tom Vera Victor Yuki Zoe"
).split()
LAST = (
    "Adams Baker Berg Brown Carter Clark Cohen Costa Cruz Davis Evans Fischer Garcia Green Hall Hansen Ito Jensen Jones "
    "Kaya Kim King Klein Lee Lopez Martin Meyer Miller Moore Novak Okafor Patel Perez Quinn Reed Rossi Sato Silva Singh "
    "Smith Stone Tanaka Taylor Turner Vega Walker Weber White Wilson Wood Young"
).split()
CITIES = (
    "Amsterdam Athens Berlin Boston Cairo Chicago Copenhagen Delhi Dublin Geneva Helsinki Istanbul Lagos Lima Lisbon "
    "London Madrid Milan Montreal Nairobi Osaka Oslo Paris Prague Rome Seoul Sydney Tokyo Toronto Vienna Warsaw"
).split()
GOODS = (
    "apple bread butter cheese chair clock coffee cup desk flour honey jacket keyboard lamp milk mirror notebook "
    "olive orange paper pear pencil pepper phone plate rice salt scarf shirt shoes soap spoon sugar table tea tomato "
    "towel umbrella wallet watch water"
).split()
COLOURS = "red green blue black white yellow orange purple brown grey".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November December").split()


def person(rng):
    first, last = rng.choice(FIRST), rng.choice(LAST)
    return dict(
        name=f"{first} {last}",
        age=rng.randint(18, 80),
        city=rng.choice(CITIES),
        email=f"{first}.{last}@example.com".lower(),
    )


def item(rng):
    return dict(
        id=rng.randint(100, 9999),
        name=rng.choice(GOODS),
        colour=rng.choice(COLOURS),
        price=round(rng.uniform(0.5, 200), 2),
        quantity=rng.randint(1, 50),
        available=rng.random() < 0.7,
    )


def place(rng):
    return dict(
        city=rng.choice(CITIES),
        day=rng.choice(DAYS),
        low=rng.randint(-10, 15),
        high=rng.randint(16, 38),
        rain=rng.random() < 0.4,
    )


def date(rng):
    return f"{rng.randint(1995, 2026)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def rows(rng, low=2, high=9):
    make = rng.choice([person, item, place])
    return [make(rng) for _ in range(rng.randint(low, high))]


def as_csv(table):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def as_table(table):
    lines = ["| " + " | ".join(table[0]) + " |", "|" + "---|" * len(table[0])]
    return "\n".join(lines + ["| " + " | ".join(str(v) for v in row.values()) + " |" for row in table]) + "\n"


def as_settings(rng):
    out = []
    for section in rng.sample(
        ["server", "database", "logging", "cache", "client", "network", "storage", "mail"], rng.randint(2, 4)
    ):
        out.append(f"[{section}]")
        values = [
            ("host", f"{section}.example.com"),
            ("port", rng.choice([80, 443, 5432, 8080, 6379])),
            ("timeout", rng.randint(1, 90)),
            ("enabled", rng.choice(["true", "false"])),
            ("level", rng.choice(["debug", "info", "warning", "error"])),
            ("path", f"/var/lib/{section}"),
            ("user", rng.choice(FIRST).lower()),
            ("retries", rng.randint(0, 9)),
        ]
        out += [f"{key} = {value}" for key, value in rng.sample(values, rng.randint(3, 6))] + [""]
    return "\n".join(out)


def as_log(rng):
    day, hour, minute, out = date(rng), rng.randint(0, 22), 0, []
    for _ in range(rng.randint(5, 15)):
        minute += rng.randint(0, 4)
        who = rng.choice(FIRST).lower()
        what = rng.choice(
            [
                f"user {who} logged in",
                f"user {who} logged out",
                f"request took {rng.randint(1, 900)} ms",
                f"wrote {rng.randint(1, 99)} records",
                "connection closed",
                "cache is full, dropping old entries",
                f"retrying in {rng.randint(1, 60)} seconds",
            ]
        )
        out.append(
            f"{day} {hour + minute // 60:02}:{minute % 60:02}:{rng.randint(0, 59):02} {rng.choice(['INFO', 'INFO', 'WARNING', 'DEBUG'])} {what}"
        )
    return "\n".join(out) + "\n"


def as_list(rng):
    what = rng.choice([GOODS, CITIES, COLOURS, DAYS, MONTHS])
    some = rng.sample(what, rng.randint(3, min(8, len(what))))
    if rng.random() < 0.5:
        some.sort()
    if rng.random() < 0.5:
        return "".join(f"{n}. {one}\n" for n, one in enumerate(some, 1))
    return "".join(f"- {one}\n" for one in some)


def as_sql(rng):
    table = rows(rng)
    name = rng.choice(["customers", "orders", "stock", "weather"])
    return "".join(
        f"INSERT INTO {name} ({', '.join(row)}) VALUES ({', '.join(repr(v) for v in row.values())});\n" for row in table
    )


def as_counting(rng):
    start, step = rng.randint(0, 50), rng.choice([1, 1, 2, 3, 5, 10])
    return ", ".join(str(start + step * i) for i in range(rng.randint(8, 25))) + "\n"


def generate(rng, size):
    """-> documents of about `size` bytes in all"""
    makers = [
        lambda: json.dumps(rows(rng), indent=rng.choice([2, 2, 4])) + "\n",
        lambda: "".join(json.dumps(row) + "\n" for row in rows(rng)),
        lambda: json.dumps(
            dict(date=date(rng), customer=person(rng), items=[item(rng) for _ in range(rng.randint(1, 4))]), indent=2
        )
        + "\n",
        lambda: as_csv(rows(rng, 4, 14)),
        lambda: as_table(rows(rng)),
        lambda: as_settings(rng),
        lambda: as_log(rng),
        lambda: as_list(rng),
        lambda: as_sql(rng),
        lambda: as_counting(rng),
    ]
    out, made = [], 0
    while made < size:
        document = "\n".join(rng.choice(makers)() for _ in range(rng.randint(1, 4)))
        made += len(document)
        out.append(document)
    return out
