"""Wrong answers to the exercises of chapter 2."""


def every_run(strip):
    return sum(run.length for run in strip.regions)


def once_for_each_gap(strip):
    return sum(run.length for gap, _ in strip.gaps for run in strip.regions if run.start > gap)


def the_next_run_alone(strip):
    starts = {start + length for start, length in strip.gaps}
    return sum(run.length for run in strip.regions if run.start in starts)


def closing_them_at_once(strip):
    rows = place = 0
    for run in sorted(strip.regions):
        rows += run.length if run.start != place else 0
        place += run.length
        strip.release(run.owner)
    return rows


def best_fit(gaps, length):
    fitting = [gap for gap in gaps if gap[1] >= length]
    if not fitting:
        return None
    start, available = min(fitting, key=lambda gap: gap[1])
    index = gaps.index((start, available))
    gaps[index : index + 1] = [(start + length, available - length)] if available > length else []
    return start


def leaving_empty_gaps(gaps, length):
    for index, (start, available) in enumerate(gaps):
        if available >= length:
            gaps[index] = (start + length, available - length)
            return start
    return None


def never_filling_a_gap(gaps, length):
    for index, (start, available) in enumerate(gaps):
        if available > length:
            gaps[index] = (start + length, available - length)
            return start
    return None


def in_a_list_of_its_own(gaps, length):
    for start, available in gaps:
        if available >= length:
            gaps = [gap for gap in gaps if gap[0] != start]
            return start
    return None


def never_joining(gaps, start, length):
    gaps.append((start, length))
    gaps.sort()


def joining_behind(gaps, start, length):
    for index, (gap, size) in enumerate(gaps):
        if gap == start + length:
            gaps[index] = (start, length + size)
            return
    never_joining(gaps, start, length)


def joining_one_of_two(gaps, start, length):
    for index, (gap, size) in enumerate(gaps):
        if gap + size == start:
            gaps[index] = (gap, size + length)
            return
    joining_behind(gaps, start, length)


WRONG = {
    "2.2": [
        (every_run, "rows that move"),
        (once_for_each_gap, "rows that move"),
        (the_next_run_alone, "rows that move"),
        (closing_them_at_once, "the runs afterwards"),
    ],
    "2.5": [
        (best_fit, "it returned"),
        (leaving_empty_gaps, "gaps afterwards"),
        (never_filling_a_gap, "it returned"),
        (in_a_list_of_its_own, "gaps afterwards"),
    ],
    "2.6": [
        (never_joining, "gaps afterwards"),
        (joining_behind, "gaps afterwards"),
        (joining_one_of_two, "gaps afterwards"),
    ],
}
