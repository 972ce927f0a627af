"""Holds the installed packages to `requirements.txt` beside this file, for which the launch was written, as it is imported.

Another version may lack a setting, or have it and mean something else by it. ANY_VERSION=1 makes a warning of it.
"""

import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version


def numbers(text):
    """The release of a version, without what follows it: `2.9.0` of `2.9.0rc1+cu130`."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    parts = [int(part) for part in found.group().split(".")] if found else []
    while parts and parts[-1] == 0:
        parts.pop()
    return parts


def differing(lines):
    """A sentence for every package that is of another version than its line asks for."""
    for line in lines:
        asked = re.match(r"([\w.-]+)(?:\[[\w,-]*\])?(==|>=)([\w.+]+)$", line.strip())
        if not asked:
            continue
        package, sign, wanted = asked.groups()
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        if numbers(found) == numbers(wanted) or sign == ">=" and numbers(found) > numbers(wanted):
            continue
        yield f"written for {package} {wanted}{' or later' if sign == '>=' else ''}, found {found}"


def check():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "requirements.txt")
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        problems = "; ".join(differing(file))
    if not problems:
        return
    if os.environ.get("ANY_VERSION"):
        print(f"warning: {problems}", file=sys.stderr)
        return
    raise SystemExit(f"{problems}: `pip install -r {path}`, or set ANY_VERSION=1 to go on at your own risk")


check()
