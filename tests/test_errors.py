"""The helpers for messages of errors."""

import ast
from collections import defaultdict
from pathlib import Path

import boneage_jax
from boneage_jax.errors import listed, where


def test_ten_names_are_listed_in_full():
    assert listed(str(i) for i in range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"


def test_more_than_ten_names_end_with_an_ellipsis():
    assert listed([str(i) for i in range(11)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."


def test_unexpected_error_is_located_without_its_message():
    try:
        int("Doe^Jane")
    except ValueError as error:
        place = where(error)
    assert place.startswith("ValueError at ")
    assert "test_errors.py:" in place
    assert "Doe" not in place


def error_classes(trees):
    """The names of BoneAgeError and its subclasses."""
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    kinds = {"BoneAgeError"}
    while further := {name for name, parents in bases.items() if parents & kinds} - kinds:
        kinds |= further
    return kinds


def error_calls(tree, kinds):
    """Calls that construct an error, and those of `super().__init__` in its class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in kinds:
            yield node
        if isinstance(node, ast.ClassDef) and node.name in kinds:
            calls = (one for one in ast.walk(node) if isinstance(one, ast.Call))
            yield from (one for one in calls if ast.unparse(one.func) == "super().__init__")


def texts(tree):
    """Expressions by the name of their variable, or of the function that returns them."""
    found = defaultdict(list)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                found[ast.unparse(target)].append(node.value)
        if isinstance(node, ast.FunctionDef):
            found[node.name] += [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value]
    return found


def ends(node, named):
    """The literal texts with which a message may end."""
    match node:
        case ast.Constant(str(text)):
            return [text]
        case ast.JoinedStr(values):
            return ends(values[-1], named)
        case ast.FormattedValue(value) | ast.BinOp(right=value):
            return ends(value, named)
        case ast.IfExp(body=one, orelse=other):
            return ends(one, named) + ends(other, named)
        case ast.Name(name) | ast.Call(ast.Name(name)):
            others = {key: values for key, values in named.items() if key != name}
            return [end for value in named.get(name, []) for end in ends(value, others)]
    return []


def test_no_error_message_ends_with_a_full_stop():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(boneage_jax.__file__).parent.rglob("*.py")]
    kinds = error_classes(trees)
    assert {"BoneAgeError", "RefusedImageError", "StoppedError"} <= kinds
    for tree in trees:
        named = texts(tree)
        for call in error_calls(tree, kinds):
            for argument in call.args:
                assert not [end for end in ends(argument, named) if end.endswith(".")], ast.unparse(call)


def test_the_end_of_a_message_is_found_behind_names_functions_and_conditions():
    tree = ast.parse("END = 'a.'\ndef f():\n    return f'{x}, b.'\nTAIL = f() if x else '' + 'c.' + END")
    assert ends(ast.parse("f'{x} {TAIL}'", mode="eval").body, texts(tree)) == [", b.", "a."]
