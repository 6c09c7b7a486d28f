"""Chat turns in the Qwen3.5 template, made from facts in the prose sources and from small tasks with one right answer.

Every conversation is rendered as `chat_template.jinja` renders it; `test_demo.py` compares the two. Thinking is short and
says what the answer then does, so that a small model can learn the habit.
"""

import json
import pathlib
import re

import structured
import text

SYSTEM = [
    "You are a helpful assistant.",
    "You are a friendly assistant. Answer in short sentences.",
    "Answer the question of the user.",
    "You are a careful assistant who explains things clearly.",
]


def render(turns, thinking=True, system=None):
    """turns: (question, thought, answer) each. Thoughts of all turns but the last are dropped, as the template does."""
    out = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    for n, (question, thought, answer) in enumerate(turns):
        out += f"<|im_start|>user\n{question.strip()}<|im_end|>\n<|im_start|>assistant\n"
        if n == len(turns) - 1:
            out += f"<think>\n{thought.strip() if thinking else ''}\n</think>\n\n"
        out += f"{answer.strip()}<|im_end|>\n"
    return out


def article(word):
    return ("an " if word[0].lower() in "aeiou" else "a ") + word


def sentence(words):
    words = words.strip().rstrip(".;:,")
    return words[:1].upper() + words[1:] + "."


class Facts:
    """What the conversations are about."""

    def __init__(self, files, prose):
        self.words, self.synonyms = [], []
        for part in ("noun", "verb", "adj", "adv"):
            path = pathlib.Path(files) / "wordnet-base/usr/share/wordnet" / f"data.{part}"
            for word, kind, meaning, examples in text.wordnet(path):
                if word.islower() and word.replace(" ", "").isalpha() and 3 <= len(word) <= 14 and len(meaning) < 160:
                    self.words.append((word, kind, meaning, examples))
            for line in path.read_text("latin-1").splitlines():
                fields = line.split(" | ")[0].split()
                if line.startswith("  ") or int(fields[3], 16) < 2:
                    continue
                same = [fields[4 + 2 * i].split("(")[0].replace("_", " ") for i in range(int(fields[3], 16))]
                if all(w.islower() and w.isalpha() for w in same):
                    self.synonyms.append(same)
        self.kinds = self._kinds(pathlib.Path(files) / "wordnet-base/usr/share/wordnet/data.noun")
        self.commands = self._commands(pathlib.Path(files))
        self.questions = self._questions(prose)
        self.terms = self._terms(pathlib.Path(files) / "dict-foldoc/usr/share/dictd/foldoc.dict.dz")

    @staticmethod
    def _kinds(path):
        """-> {kind: [things of that kind]}"""
        names, parents = {}, {}
        for line in path.read_text("latin-1").splitlines():
            if line.startswith("  "):
                continue
            fields = line.split(" | ")[0].split()
            names[fields[0]] = fields[4].replace("_", " ")
            count = int(fields[3], 16)
            pointers = fields[5 + 2 * count :]
            parents[fields[0]] = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] == "@"]
        kinds = {}
        for child, above in parents.items():
            for parent in above:
                if names[child].islower() and names.get(parent, "A").islower() and len(names[parent]) < 14:
                    kinds.setdefault(names[parent], []).append(names[child])
        return {kind: things for kind, things in kinds.items() if 4 <= len(things) <= 60}

    @staticmethod
    def _commands(files):
        """-> (name, what it does) from the NAME lines of manual pages"""
        found = []
        for folder in ("manpages", "manpages-dev", "freebsd-manpages", "systemd"):
            for path in sorted((files / folder / "usr/share/man").glob("man*/*.gz")):
                page = text.read(path) if path.is_file() else ""
                match = re.search(r"^\.SH \"?NAME\"?\n(.*?)(?=^\.S)", page, re.S | re.M)
                if match:
                    line = re.sub(r"\\f.|\\|^\.\w+ ", "", match.group(1).replace("\n", " ")).strip()
                    parts = re.split(r" -+ ", line, maxsplit=1)
                    if len(parts) == 2 and re.fullmatch(r"[\w.+-]+", parts[0]) and 10 < len(parts[1]) < 120:
                        found.append((parts[0], parts[1]))
        return found

    @staticmethod
    def _questions(prose):
        """-> (question, answer): headings that ask, and the paragraph after them"""
        found = []
        for document in prose:
            blocks = document.split("\n\n")
            for heading, answer in zip(blocks, blocks[1:]):
                heading = re.sub(r"^[\d.]+\s+", "", heading.strip())
                if (
                    heading.endswith("?")
                    and 12 < len(heading) < 120
                    and "\n" not in heading
                    and re.match(r"(How|What|Why|Where|When|Which|Can|Is|Are|Do|Does|Who)\b", heading)
                    and 60 < len(answer) < 900
                    and "\n" not in answer
                    and answer.strip()[-1:] in ".!"
                    and not answer.startswith("-")
                ):
                    found.append((heading, answer.strip()))
        return found

    @staticmethod
    def _terms(path):
        found = []
        for entry in re.split(r"\n(?=\S)", text.read(path)):
            head, _, body = entry.partition("\n")
            body = text.paragraphs(re.sub(r"[{}]", "", body)).strip().split("\n")[0]
            body = re.sub(r"^(<[^>]*>\s*)?(\([^)]*\)\s*)?", "", body)
            if 2 < len(head) < 30 and 40 < len(body) < 500 and body.endswith("."):
                found.append((head.strip(), body))
        return found


GREETINGS = [
    ("Hello!", "The user greets me. I should greet back.", "Hello! How can I help you today?"),
    ("Hi", "The user greets me. I should greet back.", "Hi! What would you like to know?"),
    ("Good morning.", "The user greets me. I should greet back.", "Good morning! How can I help you?"),
    (
        "Who are you?",
        "The user asks who I am.",
        "I am a small language model. I was trained on books, dictionaries and manuals, and I like to answer questions.",
    ),
    (
        "What are you?",
        "The user asks what I am.",
        "I am a small language model. I can explain words, do simple sums, make lists and tell short stories.",
    ),
    (
        "What can you do?",
        "The user asks what I can do.",
        "I can explain words, describe commands, do simple arithmetic, make lists, write JSON and tell short stories.",
    ),
    ("How are you?", "The user asks how I am. I should answer politely.", "I am fine, thank you. How can I help you?"),
    ("Thank you!", "The user thanks me.", "You are welcome! Is there anything else you would like to know?"),
    ("Thanks, that helps.", "The user thanks me.", "I am glad to hear that. Feel free to ask me anything else."),
    ("Goodbye!", "The user says goodbye.", "Goodbye! Have a nice day."),
    (
        "Can you help me?",
        "The user needs help, but has not said with what.",
        "Of course! Please tell me what you would like to know.",
    ),
    (
        "Are you a person?",
        "The user asks whether I am a person.",
        "No, I am a small language model. I am a program that writes text.",
    ),
]


def greeting(rng, facts):
    return rng.choice(GREETINGS)


def definition(rng, facts):
    word, kind, meaning, examples = rng.choice(facts.words)
    ask = rng.choice(
        [
            f"What does “{word}” mean?",
            f"What is the meaning of the word {word}?",
            f"Define {word}.",
            f"Please explain the word “{word}”.",
            f'What does "{word}" mean?',
            f"what does {word} mean",
        ]
    )
    if kind == "noun" and rng.random() < 0.4:
        ask = rng.choice(
            [f"What is {article(word)}?", f"what is {article(word)}?", f"Tell me what {article(word)} is."]
        )
    answer = f"The word “{word}” is {article(kind)}. It means: {sentence(meaning)}"
    if kind == "noun" and rng.random() < 0.5:
        answer = f"“{word.capitalize()}” is a noun. It means {meaning.rstrip('.;')}."
    if examples:
        answer += f" For example: “{examples[0]}”."
    return ask, f"The user asks what the word “{word}” means. It is {article(kind)}.", answer


def synonym(rng, facts):
    same = rng.choice(facts.synonyms)
    word, other = rng.sample(same, 2)
    rest = [w for w in same if w not in (word, other)]
    answer = f"A synonym of “{word}” is “{other}”."
    if rest:
        answer += f" Another one is “{rest[0]}”."
    return (
        rng.choice([f"Give me a synonym of {word}.", f"What is another word for “{word}”?"]),
        f"I need a word that means the same as “{word}”.",
        answer,
    )


def kinds(rng, facts):
    kind = rng.choice(sorted(facts.kinds))
    count = rng.randint(3, 5)
    things = rng.sample(facts.kinds[kind], min(count, len(facts.kinds[kind])))
    words = {3: "three", 4: "four", 5: "five"}[len(things)]
    return (
        rng.choice(
            [
                f"Name {words} kinds of {kind}.",
                f"List {words} examples of {article(kind)}.",
                f"Give me {words} kinds of {kind}, please.",
            ]
        ),
        f"The user wants a list of {words} kinds of {kind}.",
        f"Here are {words} kinds of {kind}:\n\n" + "\n".join(f"{n}. {thing}" for n, thing in enumerate(things, 1)),
    )


def command(rng, facts):
    name, does = rng.choice(facts.commands)
    return (
        rng.choice([f"What does {name} do?", f"What is {name}?", f"What is `{name}` for?"]),
        f"The user asks about {name}. The manual has a page about it.",
        f"The manual describes `{name}` as follows: {sentence(does)}",
    )


def question(rng, facts):
    ask, answer = rng.choice(facts.questions)
    return ask, "The user asks a question. I will answer it as the documentation does.", answer


def term(rng, facts):
    name, body = rng.choice(facts.terms)
    return (
        rng.choice([f"What is {name}?", f"Explain {name}.", f"What does the term {name} mean in computing?"]),
        f"The user asks about {name}, a term of computing.",
        body,
    )


def arithmetic(rng, facts):
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    sign, value, word = rng.choice([("+", a + b, "sum"), ("-", a - b, "difference"), ("*", 0, "product")])
    if sign == "*":
        a, b = rng.randint(2, 12), rng.randint(2, 12)
        value = a * b
    ask = rng.choice([f"What is {a} {sign} {b}?", f"Calculate {a} {sign} {b}.", f"{a} {sign} {b} = ?"])
    return ask, f"I have to find the {word} of {a} and {b}. {a} {sign} {b} = {value}.", f"{a} {sign} {b} = {value}."


def story_sum(rng, facts):
    name, thing = rng.choice(structured.FIRST), rng.choice(structured.GOODS)
    a, b = rng.randint(2, 30), rng.randint(1, 30)
    many = thing if thing.endswith("s") else thing + "s"
    if rng.random() < 0.5:
        return (
            f"{name} has {a} {many} and buys {b} more. How many {many} does {name} have now?",
            f"{name} starts with {a} and gets {b} more. {a} + {b} = {a + b}.",
            f"{name} now has {a + b} {many}.",
        )
    b = min(b, a)
    return (
        f"{name} has {a} {many} and gives away {b}. How many {many} are left?",
        f"{name} starts with {a} and gives away {b}. {a} - {b} = {a - b}.",
        f"{name} has {a - b} {many} left.",
    )


def sorting(rng, facts):
    some = rng.sample(rng.choice([structured.GOODS, structured.CITIES, structured.COLOURS]), rng.randint(3, 7))
    return (
        rng.choice(["Sort these words: ", "Put these words in alphabetical order: ", "Please sort this list: "])
        + ", ".join(some),
        "The user wants the words in alphabetical order.",
        ", ".join(sorted(some)) + ".",
    )


def counting(rng, facts):
    a, n = rng.randint(1, 30), rng.randint(4, 12)
    return (
        f"Count from {a} to {a + n}.",
        f"I will count from {a} to {a + n}.",
        ", ".join(str(a + i) for i in range(n + 1)) + ".",
    )


def as_json(rng, facts):
    make, what = rng.choice(
        [(structured.person, "person"), (structured.item, "product"), (structured.place, "weather report")]
    )
    row = make(rng)
    said = ", ".join(f"{key}: {value}" for key, value in row.items())
    return (
        f"Write this {what} as JSON: {said}",
        "The user wants a JSON object with these keys.",
        "```json\n" + json.dumps(row, indent=2) + "\n```",
    )


def as_table(rng, facts):
    table = structured.rows(rng, 2, 4)
    return (
        "Make a table of this CSV:\n\n" + structured.as_csv(table),
        "The user wants a table with one row a line.",
        structured.as_table(table),
    )


def weekday(rng, facts):
    n = rng.randrange(7)
    day, after, before = (structured.DAYS[(n + i) % 7] for i in (0, 1, -1))
    return rng.choice(
        [
            (f"What day comes after {day}?", f"The day after {day} is {after}.", f"{after} comes after {day}."),
            (f"What day comes before {day}?", f"The day before {day} is {before}.", f"{before} comes before {day}."),
        ]
    )


ANIMALS = "cat dog fox owl bear mouse rabbit horse duck frog sheep crow squirrel turtle".split()
PLACES = [
    "a quiet village",
    "a small house by the sea",
    "the middle of a dark forest",
    "an old castle",
    "a busy town",
    "a green valley",
    "a mill by the river",
    "a lighthouse",
]
TRAITS = ["curious", "brave", "lazy", "clever", "shy", "kind", "hungry", "proud", "lonely", "cheerful"]
FOUND = [
    "a golden key",
    "an old map",
    "a silver bell",
    "a letter without a name",
    "a broken clock",
    "a box of apples",
    "a tiny door",
    "a book with empty pages",
    "a red umbrella",
    "a shining stone",
]
TROUBLE = [
    "a storm came up and the path was lost",
    "night fell and the wind grew cold",
    "the bridge was broken",
    "the river rose and the boat was gone",
    "nobody would believe it",
    "a great noise came from the hill",
]
HELP = [
    "an old woman with a lantern",
    "a friendly giant",
    "a wise crow",
    "a boy who sold bread",
    "a travelling musician",
    "a soldier on a grey horse",
    "the miller's daughter",
]
ENDS = [
    "And they were friends ever after.",
    "From that day on, nobody in the village was afraid of the dark.",
    "That evening they all sat by the fire and laughed.",
    "It was the best day of the year.",
    "And if you listen on a quiet night, you can still hear the song.",
    "So the story ends, and everybody went home happy.",
]
LESSONS = [
    "a small kindness is never lost",
    "it is wise to look twice",
    "good friends share what they have",
    "courage is to go on when you are afraid",
    "the longest way begins with one step",
]


def story(rng, facts):
    hero, trait, where = rng.choice(ANIMALS), rng.choice(TRAITS), rng.choice(PLACES)
    name = rng.choice(structured.FIRST)
    found, trouble, friend = rng.choice(FOUND), rng.choice(TROUBLE), rng.choice(HELP)
    day = rng.choice(["One morning", "One day", "One summer evening", "One winter day", "Early one morning"])
    lines = [
        f"Once upon a time there was {article(trait)} {hero} called {name} who lived in {where}.",
        f"{day} {name} {rng.choice(['went for a walk', 'looked under the bed', 'climbed a tree', 'swept the floor', 'walked to the market'])} and found {found}.",
        rng.choice(
            [
                f"“What a strange thing!” said the {hero}. “Whose can it be?”",
                f"The {hero} had never seen anything like it.",
                f"“I must show this to somebody,” thought {name}.",
            ]
        ),
        f"But on the way {trouble}.",
        f"Then {name} met {friend}, who said: “{rng.choice(['Do not be afraid.', 'Come with me, I know the way.', 'Tell me what you have there.', 'I have been looking for that for many years!'])}”",
        rng.choice(
            [
                f"Together they {rng.choice(['walked all night', 'crossed the water', 'climbed the hill', 'found the way home'])}.",
                f"The {hero} gave {found.replace('a ', 'the ', 1).replace('an ', 'the ', 1)} away and got a warm supper for it.",
                f"And the {hero} learned that {rng.choice(LESSONS)}.",
            ]
        ),
        rng.choice(ENDS),
    ]
    ask = rng.choice(
        [
            f"Tell me a story about {article(hero)}.",
            f"Tell me a short story about {article(trait)} {hero}.",
            "Tell me a story.",
            f"Write a short story about {article(hero)} and {found}.",
            f"Write a story about {article(hero)} called {name}.",
        ]
    )
    return (
        ask,
        f"The user wants a short story. It will be about {article(trait)} {hero} that finds {found}.",
        " ".join(lines),
    )


def repeat(rng, facts):
    word, _, meaning, _ = rng.choice(facts.words)
    said = sentence(meaning)
    return (
        rng.choice([f"Repeat after me: {said}", f"Say this again: {said}"]),
        "I only have to repeat what the user said.",
        said,
    )


def shorten(rng, facts):
    ask, answer = rng.choice(facts.questions)
    first = re.split(r"(?<=[.!?]) ", answer)[0]
    return f"Summarize this in one sentence:\n\n{answer}", "The first sentence says what matters.", first


# How often each is drawn.
TURNS = [
    (greeting, 6),
    (definition, 24),
    (synonym, 6),
    (kinds, 8),
    (command, 6),
    (question, 10),
    (term, 12),
    (arithmetic, 8),
    (story_sum, 5),
    (sorting, 4),
    (counting, 2),
    (as_json, 6),
    (as_table, 3),
    (weekday, 2),
    (story, 12),
    (repeat, 3),
    (shorten, 4),
]


def generate(rng, facts, size):
    """-> documents of about `size` bytes in all; each a few conversations"""
    makers, weights = zip(*TURNS)
    out, made = [], 0
    while made < size:
        turns = [make(rng, facts) for make in rng.choices(makers, weights, k=rng.choice([1, 1, 1, 2, 3]))]
        document = render(turns, rng.random() < 0.65, rng.choice(SYSTEM) if rng.random() < 0.25 else None)
        made += len(document.encode())
        out.append(document)
    return out
