"""A loss over the blocks of a Dask array, on a cluster of real processes: the numbers of one, whoever is lost."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import tapegrad
from tapegrad import BranchChanged, Value, record

pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
value_and_grad = pytest.importorskip("tapegrad.dask").value_and_grad

# Dask's own, of its ports and of what it takes for large; they come and go with its versions.
pytestmark = pytest.mark.filterwarnings("ignore:::distributed", "ignore:::dask", "ignore::ResourceWarning")

ROWS, BLOCK = 1003, 60


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def data(np):
    draw = np.random.default_rng(7)
    X = draw.normal(size=(ROWS, 3))
    return X, np.where(X @ [1.0, -2.0, 0.5] > 0.3, 1.0, -1.0)


@pytest.fixture
def bias():
    return Value(0.25)


@pytest.fixture
def program(np, bias):
    """A loss with a branch, of which both paths are known."""

    def loss(w, x, y):
        margin = 1 - y * (tapegrad.dot(list(w), list(x)) + bias)
        return margin * 0.01 if margin < 0 else margin**2

    program = record(loss, np.zeros(3), np.ones(3), 1.0, params=[bias], on_branch="record")
    program(np.ones(3), np.ones(3), 1.0)
    return program


@pytest.fixture
def batch(program):
    return program.map(in_axes=(None, 0, 0), reduce="mean")


@pytest.fixture
def blocks(data):
    """Dask arrays of the rows and of what is expected for them."""
    import dask.array

    X, y = data
    return dask.array.from_array(X, chunks=(BLOCK, 3)), dask.array.from_array(y, chunks=BLOCK)


WEIGHTS = [0.5, -0.25, 0.125]


def assert_close(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-12, abs=1e-12)
    assert list(found[1]) == pytest.approx(list(expected[1]), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_it_equals_the_local_batch(reduce, program, blocks, data, client):
    batch = program.map(in_axes=(None, 0, 0), reduce=reduce)
    assert_close(value_and_grad(batch, WEIGHTS, *blocks), batch.value_and_grad(WEIGHTS, *data))


def test_params_have_their_data_of_the_time_of_the_call(batch, blocks, data, bias, client):
    for bias.data in (0.5, -0.5):
        found = value_and_grad(batch, WEIGHTS, *blocks, argnums="params")
        assert_close(found, batch.value_and_grad(WEIGHTS, *data, argnums="params"))


def test_blocks_may_be_lists_arrays_delayed_or_futures(batch, data, client):
    import dask

    X, y = data
    parts = [slice(0, 500), slice(500, 500), slice(500, 700), slice(700, ROWS)]
    later = dask.delayed(lambda part: X[part])
    futures = [client.submit(lambda part: y[part].tolist(), part) for part in parts]
    expected = batch.value_and_grad(WEIGHTS, *data)
    assert_close(value_and_grad(batch, WEIGHTS, (later(part) for part in parts), futures), expected)
    lists = [X[part].tolist() for part in parts]
    assert_close(value_and_grad(batch, WEIGHTS, lists, [y[part] for part in parts]), expected)


def test_rows_may_be_on_another_axis(np, program, blocks, data, client):
    X, y = blocks
    batch = program.map(in_axes=(None, 1, 0), reduce="mean")
    expected = batch.value_and_grad(WEIGHTS, data[0].T, data[1])
    assert_close(value_and_grad(batch, WEIGHTS, X.T, y), expected)


def test_the_bits_do_not_depend_on_the_workers(batch, blocks):
    found = set()
    for n in (1, 3):
        with distributed.LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None) as cluster:
            with distributed.Client(cluster) as client:
                value, grad = value_and_grad(batch, WEIGHTS, *blocks, client=client)
                found.add((value, *grad))
    assert len(found) == 1


def test_the_program_goes_to_each_worker_once(batch, blocks, client):
    for _ in range(3):
        value_and_grad(batch, WEIGHTS, *blocks)
    holders = [w for key, w in client.who_has().items() if str(key).startswith("tapegrad-")]
    assert len(holders) == 1 and len(holders[0]) == 2


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(batch, data, client):
    import dask

    X, y = data

    def slowly(k):
        time.sleep(0.1)
        return X[k : k + BLOCK]

    starts = range(0, ROWS, BLOCK)
    parts = [dask.delayed(slowly)(k) for k in starts], [y[k : k + BLOCK] for k in starts]
    undisturbed = value_and_grad(batch, WEIGHTS, *parts)
    before = client.run(os.getpid)
    victim = sorted(before.values())[0]
    timer = threading.Timer(0.5, os.kill, (victim, signal.SIGKILL))
    timer.start()
    value, grad = value_and_grad(batch, WEIGHTS, *parts)
    timer.join()
    client.wait_for_workers(2, timeout=60)
    assert victim not in client.run(os.getpid).values()
    assert (value, *grad) == (undisturbed[0], *undisturbed[1])
    assert_close((value, grad), batch.value_and_grad(WEIGHTS, *data))


def test_a_path_that_the_program_learns_later_is_sent_again(client):
    program = record(lambda w, x: w * x if x > 0 else w * x * x, 1.0, 1.0, on_branch="record")
    batch = program.map(in_axes=(None, 0), reduce="sum")
    assert value_and_grad(batch, 2.0, [[1.0], [2.0, 3.0]]) == (12.0, 6.0)
    with pytest.raises(BranchChanged, match=r"-3\.0 > 0\.0 is False in row 1"):
        value_and_grad(batch, 2.0, [[1.0], [2.0, -3.0]])
    program(1.0, -1.0)
    assert value_and_grad(batch, 2.0, [[1.0], [2.0, -3.0]]) == (24.0, 12.0)


def test_what_makes_no_sense_is_refused_before_anything_is_sent(program, batch, blocks, data):
    X, y = blocks
    with pytest.raises(ValueError, match="must reduce"):
        value_and_grad(program.map(in_axes=(None, 0, 0)), WEIGHTS, X, y)
    with pytest.raises(ValueError, match="argument x is mapped: a gradient by it has a row for each"):
        value_and_grad(batch, WEIGHTS, X, y, argnums=(0, -2))
    with pytest.raises(ValueError, match="argument y has 16 blocks, argument x has 17"):
        value_and_grad(batch, WEIGHTS, X, y[:960])
    with pytest.raises(ValueError, match="argument x has no blocks"):
        value_and_grad(batch, WEIGHTS, [], [])
    with pytest.raises(ValueError, match="chunks along other axes than 0"):
        value_and_grad(batch, WEIGHTS, X.rechunk((60, 1)), y)
    with pytest.raises(TypeError, match="argument x must be a Dask array or an iterable of blocks, not 'ndarray'"):
        value_and_grad(batch, WEIGHTS, *data)
    with pytest.raises(TypeError, match="takes 3 arguments, not 2"):
        value_and_grad(batch, WEIGHTS, X)


# ---- loops ----


@pytest.fixture
def loop(bias):
    """Of a step that branches, whose paths are known; the loss has ys and what comes at the end."""

    def step(state, x, k):
        state = state * k + x if x > 0 else state - x * bias
        return state, state * state

    final = record(lambda state, k: state * bias, 1.0, 0.5, params=[bias])
    program = record(step, 1.0, 1.0, 0.5, params=[bias], on_branch="record")
    loop = program.scan(final=final)
    loop(1.0, [1.0, -1.0], 0.5)
    return loop


@pytest.fixture
def sequences(np):
    draw = np.random.default_rng(3)
    return draw.normal(size=ROWS), draw.normal(size=(ROWS, 7))


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_a_loop_equals_the_local_batch(reduce, loop, bias, sequences, client):
    import dask.array

    states, xs = sequences
    blocks = dask.array.from_array(states, chunks=BLOCK), dask.array.from_array(xs, chunks=(BLOCK, 7))
    batch = loop.map(in_axes=(0, 0, None), reduce=reduce)
    for bias.data in (0.5, -0.5):
        value, (by_k, by_params) = value_and_grad(batch, *blocks, 0.5, argnums=(2, "params"))
        expected, (k, params) = batch.value_and_grad(states, xs, 0.5, argnums=(2, "params"))
        assert_close((value, [by_k, *by_params]), (expected, [k, *params]))
    holders = [w for key, w in client.who_has().items() if str(key).startswith("tapegrad-")]
    assert len(holders) == 1 and len(holders[0]) == 2


def test_a_loop_over_one_block_has_the_bits_of_the_local_batch(loop, sequences, client):
    states, xs = (x[:200] for x in sequences)
    batch = loop.map(in_axes=(0, None, None), reduce="sum")
    value, grads = value_and_grad(batch, [states], xs[0], 0.5, argnums=(1, 2))
    expected, local = batch.value_and_grad(states, xs[0], 0.5, argnums=(1, 2))
    assert (value, grads[0].tolist(), grads[1]) == (expected, local[0].tolist(), local[1])


def test_blocks_of_sequences_may_differ_in_length(loop, sequences, client):
    states, xs = sequences
    batch = loop.map(in_axes=(0, 0, None), reduce="sum")
    found = value_and_grad(batch, [states[:10], states[10:30]], [xs[:10], xs[10:30, :3]], 0.5, argnums=(2,))
    parts = [batch.value_and_grad(states[:10], xs[:10], 0.5, argnums=2)]
    parts.append(batch.value_and_grad(states[10:30], xs[10:30, :3], 0.5, argnums=2))
    assert_close(found, [sum(value for value, _ in parts), [sum(slope for _, slope in parts)]])


def test_a_loop_of_a_length_takes_no_xs_and_ends_by_itself(client):
    step = record(lambda s, x, k: (s * k, s), 1.0, None, 0.5)
    loop = step.scan(length=50, until=lambda s: s < 0.1)
    batch = loop.map(in_axes=(0, None, None), reduce="sum")
    expected = batch.value_and_grad([1.0, 2.0, 3.0], None, 0.5, argnums=2)  # and both paths of until are known
    assert value_and_grad(batch, [[1.0], [2.0, 3.0]], None, 0.5, argnums=2) == expected


def test_a_path_that_the_loop_learns_later_is_sent_again_and_the_step_is_named(client):
    loop = record(lambda s, x: s + x if x > 0 else s * x, 1.0, 1.0, on_branch="record").scan()
    batch = loop.map(in_axes=(None, 0), reduce="sum")
    assert value_and_grad(batch, 1.0, [[[1.0, 2.0]]]) == (4.0, 1.0)
    with pytest.raises(BranchChanged, match=r"-2\.0 > 0\.0 is False in step 1 of row 1"):
        value_and_grad(batch, 1.0, [[[1.0, 2.0], [1.0, -2.0]]])
    loop(1.0, [-1.0])
    assert value_and_grad(batch, 1.0, [[[1.0, 2.0], [1.0, -2.0]]]) == (4.0 - 4.0, 1.0 - 2.0)


def test_what_makes_no_sense_of_a_loop_is_refused_before_anything_is_sent(loop):
    with pytest.raises(TypeError, match=r"not 'Loop': loop\.map\(\.\., reduce='mean'\) makes one"):
        value_and_grad(loop, 1.0, [1.0], 0.5)
    batch = loop.map(in_axes=(0, 0, None), reduce="mean")
    with pytest.raises(ValueError, match="argument xs is mapped: a gradient by it has a row for each"):
        value_and_grad(batch, [[1.0]], [[[1.0]]], 0.5, argnums=1)
    with pytest.raises(ValueError, match="must reduce"):
        value_and_grad(loop.map(in_axes=(0, 0, None)), [[1.0]], [[[1.0]]], 0.5)
    bare = record(lambda s, x: [s[0] * x, s[1]], [1.0, 2.0], 1.0).scan().map(in_axes=(0, 0), reduce="sum")
    with pytest.raises(TypeError, match="there is neither, and the state has several"):
        value_and_grad(bare, [[[1.0, 2.0]]], [[[1.0]]])
