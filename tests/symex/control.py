#!/usr/bin/env python3
"""Executes the compiled control decoder symbolically, for every input of every length up to N.

    control.py LIBRARY [N]

The inputs of one length are taken case by case, by what the length fields in it say: where the next
control message begins is a number then, and the solver is not asked about addresses. That the cases
leave no input out is shown by the solver, too. On every path: it ends without a panic; it reads no byte of the input's neighbourhood but the input
(so it consumes no more than there is); it names no more descriptors than have room, none is
negative, and each is four bytes of the input. A panic that is planted has to be found, and a false
property ("no descriptor is above 1000") refuted, or nothing of this means anything.

What is trusted: angr's lifting of the machine code, and z3.
"""

import functools
import logging
import multiprocessing
import os
import sys
import time

logging.disable(logging.ERROR)

import angr  # noqa: E402
import claripy  # noqa: E402

INPUT, OUTPUT, NEAR = 0x1000_0000, 0x2000_0000, 0x1_0000
# Of `Found`: how many items, which of them are descriptors, and their numbers.
ITEMS, NAMED, NUMBERS, ROOM = 0, 8, 8 + 4 * 64, 64


class Outside(Exception):
    """A read beside the input."""


HEADER, ALIGN = 16, 8
MADE_UP = "a descriptor that is not in the input"


def fields(remaining):
    """What a length field may say where `remaining` bytes are left, the header's own among them: the
    condition, and the number if it is one. No value is left out."""
    field = claripy.BVS("length", 64)
    said = [(claripy.ULT(field, HEADER), None), (claripy.UGT(field, remaining), None)]
    said += [(field == number, number) for number in range(HEADER, remaining + 1)]
    solver = claripy.Solver()
    assert not solver.satisfiable([claripy.Not(condition) for condition, _ in said]), "an input is left out"
    return field, said


def cases(length, at=0):
    """Every way in which `length` bytes are cut into control messages from `at` on: lists of (place,
    length field, condition, number or None where the walk must end)."""
    if length - at < HEADER:
        yield []
        return
    field, said = fields(length - at)
    for condition, number in said:
        behind = [[]] if number is None else cases(length, at + -(-number // ALIGN) * ALIGN)
        for case in behind:
            yield [(at, field, condition, number), *case]


def explore(project, name, length, case=()):
    """All paths through `name` with `length` unknown bytes whose length fields are as `case` says: the
    bytes, the states at the end of each, and those that panicked."""
    function = project.loader.find_symbol(name).rebased_addr
    panicked = project.loader.find_symbol("symex_panicked").rebased_addr
    state = project.factory.call_state(
        function, INPUT, length, OUTPUT,
        add_options={angr.options.ZERO_FILL_UNCONSTRAINED_MEMORY, angr.options.ZERO_FILL_UNCONSTRAINED_REGISTERS},
    )
    data = [claripy.BVS(f"byte{at}", 8) for at in range(length)]
    for at, field, condition, number in case:
        bytes_of = (field if number is None else claripy.BVV(number, 64)).reversed.chop(8)
        data[at:at + 8] = bytes_of
        state.add_constraints(condition)
    for at, byte in enumerate(data):
        state.memory.store(INPUT + at, byte)
    state.memory.store(OUTPUT, claripy.BVV(0, 8 * (NUMBERS + 4 * ROOM)))

    def inside(state):
        address, size = state.inspect.mem_read_address, state.inspect.mem_read_length
        size = size if isinstance(size, int) else state.solver.max(size)
        if not isinstance(address, int) and address.symbolic:
            beside = claripy.And(
                claripy.UGE(address, INPUT - NEAR), claripy.ULT(address, INPUT + NEAR),
                claripy.Or(claripy.ULT(address, INPUT), claripy.UGT(address + size, INPUT + length)),
            )
            if state.solver.satisfiable(extra_constraints=[beside]):
                raise Outside(f"{address} of {length} bytes")
            return
        address = state.solver.eval(address) if not isinstance(address, int) else address
        near = INPUT - NEAR <= address < INPUT + NEAR
        if near and not (INPUT <= address and address + size <= INPUT + length):
            raise Outside(f"{size} bytes at {address - INPUT} of {length}")

    state.inspect.b("mem_read", when=angr.BP_BEFORE, action=inside)
    manager = project.factory.simulation_manager(state)
    manager.use_technique(angr.exploration_techniques.DFS())
    ended, panics = [], []
    steps = 0
    while manager.active:
        manager.step()
        steps += 1
        assert steps < 1_000_000, "a path without an end"
        manager.move("active", "panicked", lambda state: state.addr == panicked)
        panics += manager.stashes.pop("panicked", [])
        ended += manager.stashes["deadended"]
        manager.stashes["deadended"] = []
        if not manager.active and manager.stashes.get("deferred"):
            manager.active.append(manager.stashes["deferred"].pop())
    if manager.errored:
        raise manager.errored[0].error
    assert not manager.unconstrained, "a jump to where the input says"
    return data, ended, panics


def word(state, at):
    return state.memory.load(OUTPUT + at, 4, endness="Iend_LE")


def item_count(state):
    counts = state.solver.eval_upto(state.memory.load(OUTPUT + ITEMS, 8, endness="Iend_LE"), 2)
    assert len(counts) == 1, "a path names one number of items"
    assert counts[0] <= ROOM, f"{counts[0]} items"
    return counts[0]


def named(state):
    """The items of a path that may be descriptors: when each is one, and its number."""
    noted = [(word(state, NAMED + 4 * at) == 1, word(state, NUMBERS + 4 * at)) for at in range(item_count(state))]
    return [(one, number) for one, number in noted if state.solver.satisfiable([one])]


def hold(state, data):
    """The properties at the end of a path; how many descriptors it may name."""
    found = named(state)
    assert 4 * len(found) <= max(0, len(data) - 16), f"{len(found)} descriptors in {len(data)} bytes"
    assert item_count(state) <= len(data), f"{item_count(state)} items in {len(data)} bytes"
    places = [claripy.Concat(*reversed(data[at:at + 4])) for at in range(len(data) - 3)]
    for one, number in found:
        assert not state.solver.satisfiable([one, claripy.SLT(number, 0)]), "a negative descriptor"
        made_up = claripy.And(*[number != place for place in places])
        assert not state.solver.satisfiable([one, made_up]), MADE_UP
    return len(found)


def planted(project):
    """The two defects planted in the library: each has to be found."""
    data, _, panics = explore(project, "symex_planted", 8)
    assert panics, "the planted panic was not found"
    byte = panics[0].solver.eval(data[3])
    print(f"planted: symex: P8: a panic where a byte is 42 -> `make symex`, found with the byte {byte}", flush=True)
    try:
        for case in cases(20):
            data, ended, _ = explore(project, "symex_made_up", 20, case)
            for state in ended:
                hold(state, data)
    except AssertionError as failure:
        assert str(failure) == MADE_UP, failure
        print(f"planted: symex: P2: descriptor 0 in place of the one that came -> `make symex`, \"{failure}\"", flush=True)
    else:
        raise AssertionError("the planted descriptor 0 was not found")


def walk(library, length):
    """Every input of `length` bytes: the length, how many paths, the most descriptors of one, and a
    descriptor above 1000 if there is one."""
    project = angr.Project(library, auto_load_libs=False)
    paths, descriptors, refuted = 0, 0, None
    for case in cases(length):
        data, ended, panics = explore(project, "symex_control", length, case)
        assert not panics, f"a panic: {bytes(panics[0].solver.eval(byte) for byte in data).hex()}"
        assert ended, "no path ends"
        descriptors = max([descriptors] + [hold(state, data) for state in ended])
        for state in ended if refuted is None else []:
            for one, number in named(state):
                above = [one, claripy.SGT(number, 1000)]
                if state.solver.satisfiable(above):
                    refuted = state.solver.eval(number, extra_constraints=above)
        paths += len(ended)
    return length, paths, descriptors, refuted


def main():
    library, most = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 48
    planted(angr.Project(library, auto_load_libs=False))
    started, paths, descriptors, refuted = time.monotonic(), 0, 0, None
    # The lengths know nothing of each other: a processor each, the longest first, since it takes longest.
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0)), maxtasksperchild=1) as pool:
        walks = pool.imap_unordered(functools.partial(walk, library), range(most, -1, -1))
        for length, its_paths, its_descriptors, above in walks:
            paths, descriptors, refuted = paths + its_paths, max(descriptors, its_descriptors), refuted or above
            print(f"{length} bytes: {its_paths} paths, {time.monotonic() - started:.1f} s so far", flush=True)
    if most >= 20:
        assert refuted is not None, "a false property was not refuted"
        print(f"planted: symex: P2: the false property that no descriptor is above 1000 -> `make symex`, refuted by {refuted}")
    print(
        f"evidence: symex: every input of 0 to {most} bytes to the compiled control decoder: {paths:,} paths, "
        f"up to {descriptors} descriptors, no panic, no read beside the input, "
        f"{time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
