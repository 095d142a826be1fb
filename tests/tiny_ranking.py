"""Made-up rankings: a clear one, one where nothing stands out, one where not transferring wins."""

from dataclasses import replace

from graftwork.records import Candidate, Ranking, Score, Transferability

NAMES = ("efficient-photos", "mobilenet_v2_1.0_224", "birds-specialist", "tiny_0.25")
LICENCES = ("apache-2.0", "cc-by-nc-4.0", None, "mit")
REASONS = (
    "highest expected accuracy, 2.4 points ahead of mobilenet_v2_1.0_224",
    "2.4 points behind efficient-photos",
    "9.8 points behind efficient-photos after 400 rows, and asked no further",
    "13.1 points behind efficient-photos after 400 rows, and asked no further; 6.3 times as fast",
)


def scores(z: float) -> tuple[Transferability, ...]:
    return (
        Transferability("evidence", -1.2345, z, 0.01),
        Transferability("log_loss", -0.6789, z - 2, 0.01),
        Transferability("leep", -0.9876, z - 5, 0.02),
    )


def candidate(i: int) -> Candidate:
    value = (0.8612, 0.8371, 0.7633, 0.7302)[i]
    return Candidate(
        name=NAMES[i],
        sha256=f"{i}c" * 32,
        licence=LICENCES[i],
        width=(1408, 1280, 1024, 256)[i],
        rows=(2190, 2190, 400, 400)[i],
        expected=Score("accuracy", value, value - 0.0214 - 0.01 * i, value + 0.0187 + 0.01 * i, 2190),
        probability_best=(0.943, 0.057, 0.0004, 0.0)[i],
        regret=(0.0007, 0.0248, 0.0986, 0.1317)[i],
        scores=scores(41.3 - 9 * i),
        seconds=(31.4, 12.6, 9.9, 0.82)[i],
        memory=(31_200_000, 8_900_000, 12_800_000, 852_000)[i],
        rows_per_second=(71.4, 321.5, None, 2012.0)[i],
        reason=REASONS[i],
    )


def ranking() -> Ranking:
    return Ranking(
        metric="accuracy",
        choice=NAMES[0],
        candidates=tuple(candidate(i) for i in range(4)),
        baseline=Score("accuracy", 0.6521, 0.6288, 0.6754, 2190),
        ahead=Score("accuracy", 0.209, 0.181, 0.237, 2190),
        p=0.01,
        rows=2190,
        budget=120.0,
        seconds=58.3,
        refused={"speech_embedding": "takes recordings, the data are images", "lost": "its files are gone"},
        sentence="beats the model without transfer (efficient-photos: +20.9 points, 95% +18.1 to +23.7); "
        "efficient-photos: accuracy 0.861 expected with all rows, the best of 4 with probability 0.94",
    )


def nothing() -> Ranking:
    """Shuffled labels: all near chance."""
    low = tuple(
        replace(
            candidate(i),
            expected=Score("accuracy", 0.101 - 0.003 * i, 0.084, 0.121, 2190),
            probability_best=(0.31, 0.27, 0.22, 0.2)[i],
            regret=0.006 + 0.001 * i,
            scores=tuple(replace(one, z=0.4 - 0.3 * i, p=0.37) for one in scores(0)),
            reason="no different from the others",
        )
        for i in range(4)
    )
    return replace(
        ranking(),
        choice=None,
        candidates=low,
        baseline=Score("accuracy", 0.1033, 0.0912, 0.1154, 2190),
        ahead=Score("accuracy", -0.0023, -0.0158, 0.0112, 2190),
        p=0.42,
        refused={},
        budget=None,
        sentence="nothing stands out: no source tells these labels apart (p = 0.42)",
    )


def unsure() -> Ranking:
    """The first source lies above not transferring, but the interval of the difference has both signs."""
    return replace(
        ranking(),
        baseline=Score("accuracy", 0.7931, 0.7312, 0.8434, 247),
        ahead=Score("accuracy", 0.021, -0.017, 0.059, 247),
    )


def beaten() -> Ranking:
    """Sources stand out from shuffled labels, yet not transferring does better."""
    return replace(
        ranking(),
        baseline=Score("accuracy", 0.8521, 0.8394, 0.8631, 2190),
        ahead=Score("accuracy", -0.041, -0.056, -0.026, 2190),
        sentence="no source beats the model without transfer (efficient-photos: -4.1 points, "
        "95% -5.6 to -2.6); efficient-photos: accuracy 0.861 expected with all rows",
    )
