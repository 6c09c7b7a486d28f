#!/usr/bin/env python3
"""What a user meets around the commands, tried on the programs themselves: help that fits, examples that run, mistakes
with the nearest name, completion, the manual page, --version, --print-config. Usage: check_cli.py PROGRAM..."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

problems = []


def expect(truth, what):
    if not truth:
        problems.append(what)


class Program:
    def __init__(self, path):
        self.path, self.name = path, os.path.basename(path)
        self.home = tempfile.mkdtemp()
        for folder in (".zfunc", ".config/fish/completions"):
            os.makedirs(os.path.join(self.home, folder))
        self.environment = {"PATH": os.path.dirname(path) + os.pathsep + os.environ["PATH"], "HOME": self.home}

    def run(self, *words, **environment):
        return subprocess.run([self.path, *words], capture_output=True, text=True, env=self.environment | environment,
                              stdin=subprocess.DEVNULL, timeout=60)

    def shell(self, script, name="bash"):
        return subprocess.run([name, "-c", script], capture_output=True, text=True, env=self.environment, cwd=self.home,
                              stdin=subprocess.DEVNULL, timeout=60)


def check_page(page, where):
    for line in page.splitlines():
        expect(len(line) <= 100, f"{where}: wider than 100 columns: {line}")
    examples = page.rpartition("\nexamples:\n")[2].splitlines()
    expect(len(examples) == 3, f"{where}: {len(examples)} examples, not 3")
    return [example.strip() for example in examples]


def check_help(program):
    alone = program.run()
    expect(alone.returncode == 2 and not alone.stdout and alone.stderr.startswith(f"usage: {program.name} COMMAND"),
           f"{program.name}: no arguments: a usage on stderr and exit 2, not {alone}")
    page = program.run("--help")
    expect(page.returncode == 0 and not page.stderr, f"{program.name} --help: {page}")
    check_page(page.stdout, f"{program.name} --help")
    check_page(program.run("--help-all").stdout, f"{program.name} --help-all")
    commands = re.findall(r"^  ([\w-]+) ", page.stdout.split("commands:\n")[1].split("\n\n")[0], re.M)
    expect("completion" in commands, f"{program.name} --help: lists {commands}")
    for command in commands:
        where = f"{program.name} {command}"
        brief, everything = program.run(command, "--help"), program.run(command, "--help-all")
        expect(brief.returncode == 0 and everything.returncode == 0, f"{where} --help: {brief.stderr}{everything.stderr}")
        check_page(everything.stdout, f"{where} --help-all")
        expect("Expert:" in everything.stdout and "Expert:" not in brief.stdout, f"{where}: expert flags in --help-all alone")
        for example in check_page(brief.stdout, f"{where} --help"):
            # A flag that is wrong ends with 2 before anything else is looked at; 5 is the plan that is not here.
            alone = re.split(r" [<>|]", example)[0]
            tried = program.shell(example if command == "completion" else f"{alone} --print-config")
            expect(tried.returncode in (0, 5), f"{where}: the example does not run: {example}: {tried.stderr}")
    return commands


def check_mistakes(program, commands):
    def refused(*words):
        result = program.run(*words)
        expect(result.returncode == 2 and not result.stdout, f"{program.name} {words}: {result}")
        return result.stderr
    for command in commands:
        wrong = command + "x"
        text = refused(wrong)
        expect(text == f"{program.name}: error: {wrong}: unknown command, did you mean {command}?\n", text)
        text = refused(command, "--progres", "bar")
        expect(text == f"{program.name}: error: {command}: --progres: unknown flag, did you mean --progress?\n", text)
        text = refused(command, "--gpu-layers", "3")
        expect(text.startswith(f"{program.name}: error: {command}: --gpu-layers: unknown flag, see "), text)
    expect("unknown command, see" in refused("frobnicate"), "frobnicate")
    expect("expected a command first" in refused("--progress"), "--progress alone")


def check_settings(program, commands):
    config = os.path.join(program.home, "c.json")
    for command in (c for c in commands if c != "completion"):
        where = f"{program.name} {command} --print-config"
        upper = program.name.upper()
        with open(config, "w") as file:
            file.write('{"color": "never", "progress": "bar"}')
        result = program.run(command, "--print-config", "--json", "--config", config, **{f"{upper}_PROGRESS": "json"})
        expect(result.returncode == 0, f"{where}: {result.stderr}")
        settings = json.loads(result.stdout or "{}")
        expect(settings.get("color") == {"value": "never", "origin": "config", "from": config}, f"{where}: color")
        expect(settings.get("progress") == {"value": "json", "origin": "environment", "from": f"{upper}_PROGRESS"},
               f"{where}: progress")
        expect(settings.get("debug") == {"value": False, "origin": "built-in"}, f"{where}: debug")
        expect(settings.get("config", {}).get("origin") == "flag", f"{where}: config")
    warned = program.run(commands[0], "--print-config", **{f"{program.name.upper()}_PROGRES": "bar"})
    expect(f"did you mean {program.name.upper()}_PROGRESS?" in warned.stderr, f"{program.name}: {warned.stderr}")


def check_version(program):
    text = program.run("--version").stdout
    expect(re.match(rf"{program.name} \d+\.\d+\.\d+ \(.+, (clang|g\+\+) [\d.]+\)\ncommit ([0-9a-f]{{12}}|unknown)\n", text), text)
    fields = json.loads(program.run("--version", "--json").stdout)
    expect({"program", "version", "commit", "build_type", "compiler"} <= set(fields), str(fields))


def check_completion(program, commands):
    for shell in ("bash", "zsh", "fish"):
        script = program.run("completion", shell)
        expect(script.returncode == 0 and script.stdout, f"{program.name} completion {shell}: {script}")
        if shutil.which(shell):
            path = os.path.join(program.home, shell)
            with open(path, "w") as file:
                file.write(script.stdout)
            read = subprocess.run([shell, "-n", path], capture_output=True, text=True)
            expect(read.returncode == 0 and not read.stderr, f"{program.name} completion {shell}: {read.stderr}")

    def offered(*words):
        """What bash offers for the last of `words`."""
        listed = " ".join(f"'{word}'" for word in (program.name, *words))
        result = program.shell(f"source {program.home}/bash; COMP_WORDS=({listed}); COMP_CWORD={len(words)}; "
                               f"_{program.name}; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        expect(result.returncode == 0 and not result.stderr, f"{program.name} {words}: {result.stderr}")
        return result.stdout.split()

    expect(offered("") == [*commands, "--help", "--help-all", "--version"], f"{program.name}: offers {offered('')}")
    expect(offered("completion", "") == ["bash", "zsh", "fish"], str(offered("completion", "")))
    for command in commands:
        where = f"{program.name} {command}"
        expect(offered(command[:-1])[0].startswith(command[:-1]), where)
        expect(offered(command, "--prog") == ["--progress"], f"{where}: {offered(command, '--prog')}")
        expect(offered(command, "--progress", "") == ["auto", "bar", "plain", "json", "none"], f"{where}: --progress")
        expect(offered(command, "--progress", "=", "b") == ["bar"], f"{where}: --progress=b")
        expect(offered(command, "--progress", "=") == offered(command, "--progress", ""), f"{where}: --progress=")
        expect("bash" in offered(command, "--config", ""), f"{where}: --config offers no files")
        named = re.findall(r"^  (?:-\w, )?--(?:\[no-\])?([a-z][\w-]*)", program.run(command, "--help").stdout, re.M)
        expect(len(named) >= 4, f"{where}: --help names {named}")
        for name in named:
            expect(f"--{name}" in offered(command, "--"), f"{where}: --{name} is not offered")


def check_manual(program):
    page = program.run("--man").stdout
    for heading in ("NAME", "SYNOPSIS", "COMMANDS", "ENVIRONMENT", "EXIT STATUS"):
        expect(f".SH {heading}\n" in page, f"{program.name} --man: no {heading}")
    if shutil.which("groff"):
        set_page = subprocess.run(["groff", "-man", "-Tutf8", "-ww"], input=page, capture_output=True, text=True)
        expect(set_page.returncode == 0 and not set_page.stderr, f"{program.name} --man: {set_page.stderr[:400]}")
    reference = program.run("--reference").stdout
    for line in reference.splitlines():
        if line.startswith("| ") and not line.startswith("| variable") and line.count("`") % 2:
            problems.append(f"{program.name} --reference: a broken cell: {line}")


def main():
    for path in sys.argv[1:]:
        program = Program(os.path.abspath(path))
        commands = check_help(program)
        check_mistakes(program, commands)
        check_settings(program, commands)
        check_version(program)
        check_completion(program, commands)
        check_manual(program)
        shutil.rmtree(program.home)
        print(f"{program.name}: {len(commands)} commands")
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
