"""Cases in files, and smaller programs: what both generators need."""

import json
import os
import subprocess

from programs import TOP


def save(folder, name, program, expected):
    with open(os.path.join(folder, name + ".json"), "w") as file:
        json.dump({"name": name, "program": program, "expected": expected}, file)
        file.write("\n")


def same_record(one, other):
    return one["outcome"] == other["outcome"] and json.loads(json.dumps(one["trace"])) == other["trace"]


def differing(runner, programs, folder):
    """The names of the programs, of a dict, that end otherwise on this library."""
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))
    for name, (program, expected) in programs.items():
        save(folder, name, program, expected)
    run = subprocess.run([runner], env={**os.environ, "TREFOIL_CASES": folder}, capture_output=True, text=True, timeout=60)
    return {line.split(":")[0] for line in run.stdout.splitlines() if ": " in line}


def smaller(value):
    """Programs that are a little smaller than this one."""
    if isinstance(value, list):
        n = len(value)
        for size in sorted({n, n // 2, n // 4, 1} - {0}, reverse=True):
            for at in range(0, n, size):
                yield value[:at] + value[at + size :]
        for at, statement in enumerate(value):
            ((verb, arg),) = statement.items()
            if isinstance(arg, dict):
                for key in ("body", "finally", "except", "cancelled"):
                    if key in arg and verb not in ("create", "spawn", "start", "condition"):
                        yield value[:at] + arg[key] + value[at + 1 :]
            for less in smaller_statement(verb, arg):
                yield value[:at] + [{verb: less}] + value[at + 1 :]


def smaller_statement(verb, arg):
    if verb == "sleep" and arg > 1:
        yield 1
        yield arg - 1
    if not isinstance(arg, dict):
        return
    for at in range(len(arg.get("of", ""))):
        if verb != "wait_for":
            yield {**arg, "of": arg["of"][:at] + arg["of"][at + 1 :]}
    for key in ("timeout", "swallow"):
        if key in arg:
            yield {k: v for k, v in arg.items() if k != key}
    for key in ("after", "shield", "cancelled", "except"):
        if key in arg and verb not in ("set_deadline", "set_shield", "fail_after") and arg.get("id") != "top":
            yield {k: v for k, v in arg.items() if k != key}
    for key in ("after", "timeout"):
        if isinstance(arg.get(key), int) and 1 < arg[key] < TOP:
            yield {**arg, key: 1}
            yield {**arg, key: arg[key] - 1}
    for key in ("body", "finally", "except", "cancelled"):
        for less in smaller(arg[key]) if key in arg else ():
            yield {**arg, key: less}
