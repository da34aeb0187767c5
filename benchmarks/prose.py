"""What RESULTS.md says in words."""

INTRODUCTION = """\
tapegrad beside the closure design, micrograd and other libraries that differentiate operation by operation.

Medians of {rounds} rounds; in brackets the smallest and the largest round. Each cell of a round is a fresh process
that repeats the step for at least {seconds:g} s and gives its median; contenders take turns within a round, and ratios
are taken within a round. All gradients were compared before anything was timed: within a group they agree to 1e-9.

gc is Python's cyclic garbage collector. On is what users see. Off is the best that the closure design could do: its
graphs are garbage in cycles, so then they leak; here they are collected between steps, off the clock.
Floats and NumPy scalars compute the loss alone, without a gradient: a floor."""
GOALS = """\
What tapegrad was built to reach, and what this run measured; closures and micrograd with the collector on, unless it
says off. Times are wall time, ratios are of CPU time; the sections below say more about each."""
MOONS = """\
micrograd's demo: MLP(2, [16, 16, 1]), 100 points, hinge loss and L2, `backward()`, SGD; 65 thousand operations.
Every operator is written out, or the library's own `nn.MLP` does the layers, as in the demo; the accuracy that the
demo prints as well is left out. Ratios are of CPU time."""
GPT = """\
One name through a transformer of one block, width 16, 4 heads, context 8, and Adam on its 4,192 parameters; 61 thousand
operations. Every operator is written out; where it says `affine`, tapegrad's does the linear maps, and nothing else
changes. Adam is `tapegrad.optim.Adam`, `torch.optim.Adam`, or for the others list comprehensions. Ratios are of CPU
time."""
CHAIN = """\
`x = x*a + b` with a tanh after every tenth. ns an operation, record and sweep, wall time; a line ends where ten times
the operations would take over 10 s a step or 6 GiB. micrograd has no tanh."""
NEURON = """\
`sum((wi*xi for wi, xi in zip(w, x)), b)` as micrograd writes it, and as one `dot(w, x, b)`. ns a pair, wall time."""
PROGRAMS = """\
What records or builds a graph once, freezes it and replays it. Two moons is the loss of 100 points as above by its 337
weights; the chain has 10^5 operations, a tanh after every twentieth, the short one 10^3 without any, and a batch of
1,024 starts; a row is the loss of one point by weights and point, and a batch 1,024 rows with weights of their own, or
65,536 that share them: then the gradient is of the mean. All numbers are per recorded node, of which tapegrad's
recording counts how many there are, and for value and gradient; H v is the Hessian times a vector, as a multiple of
that. Freezing leaves out the Python loops that make the graph; for what compiles it is the compilation. Of Rosenbrock's
chained function there are whole calls from Python as well, beside those of `x * y + sin x` at two numbers. The heat
equation goes fifty steps on 64 x 64 numbers; it and the largest of Rosenbrock's are wide programs."""
SPARSE = """\
The nonzeros of Jacobians and Hessians, made from a recorded program or from CasADi's expression to what can be called,
and evaluated at a point: tapegrad's by `values`, also when compiled, CasADi SX's through its buffers. CPU time, the
best of some runs in each process."""
LOOPS = """\
Value and gradient of steps carried out in a loop, for each node that recording a step makes: 10^5 steps of Lorenz's
equations by Runge and Kutta's rule, all states kept or 1,000 of them, and 10^6; 20,000 paths of 100 days of Heston's
model. "Written out" is a program of all steps, of Lorenz's equations 5,000. CasADi's is `mapaccum`, JAX's `lax.scan`
and `grad`, diffrax's `diffeqsolve` on the same rule with recursive checkpoints. One thread, CPU time, the best of some
runs in each process."""
YARDSTICKS = {
    "finance": ("Finance", """\
Prices by Monte Carlo with all their sensitivities, as multiples of the prices alone: the swaptions of
`examples/libor.py`, and an up-and-out call of 500 steps whose barrier is watched all the time. One thread, CPU time,
the least of several runs; NumPy computes the same prices with the paths in arrays. `python benchmarks/finance.py`"""),
    "posteriors": ("Posteriors", """\
Log density and gradient of models of the posterior database at one point, as Python functions recorded once, beside the
same models in Stan, called through BridgeStan; "apart" is the largest difference of density and gradient, where Stan's
differential equations are solved to 12 digits. The least of many runs. `python benchmarks/posteriors/measure.py`"""),
    "GradBench": ("GradBench", """\
The evaluations of [GradBench](https://github.com/gradbench/gradbench) that scalar programs are for, at the largest size
of each that fits a minute, by its own protocol and checks, one thread: the derivative as a multiple of the suite's
plain valuation in C++, whose time stands beside. By hand is its C++, PyTorch and JAX are its tools, too; autograd's is
ours. Recording, freezing and compiling are left out, and so is the pattern of `ba`'s Jacobian, which never changes.
Programs of more than 10,000 instructions are not compiled. `kmeans` asks for the nearest centre, and differentiates its
distance alone; `ode`'s gradient is of one number, of which most of the unrolled program is no part; a program computes
equal minors of `det` once; `ht` is a program of the bones and one of a point, whose derivatives NumPy multiplies. Tools
of matrices see at once what a scalar program spells out: where one is ahead, the work is a matrix times another.
`python benchmarks/gradbench/measure.py`"""),
}
ADAM = """\
The optimizer's step alone: `tapegrad.optim.Adam`, `torch.optim.Adam`, and list comprehensions over closures."""
DEPTH = """\
The largest chain of `x = x*a + b` that is recorded, swept and dropped without harm, each attempt in a fresh process
that may take a minute."""
CURVE = """\
MiB resident after so many training steps, over what was resident before the first; a step is micrograd's demo with
MLP(2, [8, 8, 1]) and 4 points, 997 operations. A run stops past 1 GiB or 2 minutes. With the collector off the closure
design leaks."""
START = """\
Whole processes, medians of {rounds} rounds. An environment itself takes time to start, tapegrad's more than the others,
for it is installed to be edited in place."""
PECULIARITIES = """\
CasADi SX is symbolic: its record makes the expression, its sweep derives that, makes a function of it and calls it.
XAD's tape starts again each step. PyTorch works in double precision on one thread."""
