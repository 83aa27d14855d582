"""The one-to-one assignment with the greatest sum."""

from collections.abc import Sequence
from math import inf

# Cells of a table up to which SciPy is not worth its import, which takes longer than judging hundreds of pairs.
_SMALL = 256


def best_assignment(table: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """The (row, column) places that make up the greatest sum, as many as the shorter side has; in the order of the rows.

    Of equal ones, that which `scipy.optimize.linear_sum_assignment` takes.
    """
    if len(table) * len(table[0]) > _SMALL:
        from scipy.optimize import linear_sum_assignment

        return [(int(r), int(c)) for r, c in zip(*linear_sum_assignment(table, maximize=True), strict=True)]
    if len(table) > len(table[0]):
        return sorted((r, c) for c, r in enumerate(_columns(list(zip(*table, strict=True)))))
    return list(enumerate(_columns(table)))


def _columns(gains: Sequence[Sequence[float]]) -> list[int]:
    """The column of each row, of which there are no more than columns.

    Each row in turn takes a column along the shortest path that leaves the earlier ones theirs or moves them (Crouse 2016, On
    implementing 2D rectangular assignment algorithms).
    """
    n_rows, n_columns = len(gains), len(gains[0])
    row_price, column_price = [0.0] * n_rows, [0.0] * n_columns
    column_of, row_of, before = [-1] * n_rows, [-1] * n_columns, [-1] * n_columns
    for new in range(n_rows):
        cost = [inf] * n_columns
        rest = list(range(n_columns - 1, -1, -1))
        rows, columns = [], []  # on the way
        row, reached, end = new, 0.0, -1
        while end < 0:
            rows.append(row)
            least, best = inf, -1
            gain, paid = gains[row], row_price[row]
            for place, column in enumerate(rest):
                through = reached - gain[column] - paid - column_price[column]
                if through < cost[column]:
                    cost[column], before[column] = through, row
                if cost[column] < least or (cost[column] == least and row_of[column] < 0):
                    least, best = cost[column], place
            reached, column = least, rest[best]
            columns.append(column)
            rest[best] = rest[-1]
            rest.pop()
            if row_of[column] < 0:
                end = column
            else:
                row = row_of[column]
        row_price[new] += reached
        for row in rows[1:]:
            row_price[row] += reached - cost[column_of[row]]
        for column in columns:
            column_price[column] -= reached - cost[column]
        row = -1
        while row != new:
            row = before[end]
            row_of[end] = row
            column_of[row], end = end, column_of[row]
    return column_of
