"""What is read off a report: confusion, calibration, open-set detection and paired differences, against their definitions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score, roc_curve

from fewmatch.errors import InputError
from fewmatch.fewshot import Episodes, Report, evaluate, paired, sample_episodes
from fewmatch.fewshot.calibration import BINS, fit_temperature, measure_calibration, reliability, scored
from fewmatch.fewshot.mistakes import confusion
from fewmatch.fewshot.open_set import area_under_roc, false_positives_at_95, sample_open_episodes, unknown_detection
from tests.fewshot.test_padded import ragged


def table(seed: int, classes: int = 6, images: int = 20, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), images)
    x = rng.standard_normal((classes, 12))[labels] + spread * rng.standard_normal((classes * images, 12))
    return x.astype(np.float32), labels


def run(seed: int, **more: object) -> tuple[Report, Episodes]:
    x, labels = table(seed)
    episodes = sample_episodes(labels, ways=3, shots=2, queries=5, episodes=40, seed=seed)
    return evaluate(x, labels, episodes, keep_scores=True, **more), episodes


@pytest.mark.parametrize("seed", range(3))
def test_confusion_counts_every_query_once(seed: int) -> None:
    report, episodes = run(seed)
    found = confusion(report, episodes, 6)
    truth, given, met = [], [], np.zeros((6, 6), int)
    for e in range(len(episodes)):
        for w in range(3):
            for d in episodes.classes[e]:
                met[episodes.classes[e, w], d] += 5
            for q in range(5):
                truth.append(episodes.classes[e, w])
                given.append(episodes.classes[e, report.predictions[e, 5 * w + q]])
    np.testing.assert_array_equal(found.counts, confusion_matrix(truth, given, labels=range(6)))
    np.testing.assert_array_equal(found.met, met)
    assert found.counts.sum() == 40 * 15 and np.trace(found.counts) / 600 == pytest.approx(report.accuracy)
    np.testing.assert_allclose(found.recall, np.diagonal(found.counts) / found.counts.sum(axis=1))
    np.testing.assert_allclose(found.rates, found.counts / met)


def test_confusion_leaves_padding_out_and_knows_classes_never_asked() -> None:
    x, labels, episodes = ragged(4)
    found = confusion(evaluate(x, labels, episodes), episodes, 9)  # two classes more than the table has
    assert found.counts.sum() == (episodes.query >= 0).sum()
    wanted = np.zeros((9, 9), int)
    for e in range(len(episodes)):
        for w in np.flatnonzero(episodes.classes[e] >= 0):
            for other in episodes.classes[e][episodes.classes[e] >= 0]:
                wanted[episodes.classes[e, w], other] += (episodes.query[e, w] >= 0).sum()
    np.testing.assert_array_equal(found.met, wanted)
    assert np.isnan(found.recall[7:]).all() and np.isnan(found.rates[8, 8])


def test_scores_give_the_predictions_and_kept_scores_change_nothing() -> None:
    report, episodes = run(1)
    assert report.scores is not None
    np.testing.assert_array_equal(report.scores.argmax(axis=2), report.predictions)
    x, labels = table(1)
    quick = evaluate(x, labels, episodes)
    np.testing.assert_array_equal(quick.predictions, report.predictions)
    assert quick.scores is None and quick.accuracy == report.accuracy


@pytest.mark.parametrize("temperature", [None, 0.5, 3.0])
def test_calibration_is_the_definition(temperature: float | None) -> None:
    report, episodes = run(2)
    found = measure_calibration(report, episodes, temperature)
    tau = 10.0 if temperature is None else temperature
    scores, truth = scored(report, episodes)
    p = np.exp(tau * scores) / np.exp(tau * scores).sum(axis=1, keepdims=True)
    assert found.nll == pytest.approx(log_loss(truth, p))
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    ece = 0.0
    for b in range(BINS):
        inside = (confidence > b / BINS) & (confidence <= (b + 1) / BINS)
        assert found.count[b] == inside.sum()
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert found.ece == pytest.approx(ece)
    assert found.temperature == tau and found.to_json()["ece"] == found.ece


def test_bins_at_their_edges() -> None:
    count, mean, share = reliability(
        np.array([0.0, 0.5, 0.5, 0.75, 1.0]), np.array([False, True, False, True, True]), bins=4
    )
    np.testing.assert_array_equal(count, [1, 2, 1, 1])
    np.testing.assert_array_equal(mean, [0, 0.5, 0.75, 1])
    np.testing.assert_array_equal(share, [0, 0.5, 1, 1])


def test_the_fitted_temperature_is_the_best_and_mends_the_calibration() -> None:
    report, episodes = run(3)
    tau = fit_temperature(report, episodes)
    best = measure_calibration(report, episodes, tau)
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2):
        assert measure_calibration(report, episodes, factor * tau).nll > best.nll
    assert best.ece < measure_calibration(report, episodes, 20 * tau).ece
    assert best.ece < measure_calibration(report, episodes, tau / 20).ece


def test_a_temperature_is_found_where_all_is_right() -> None:
    x, labels = table(0, spread=1e-3)
    episodes = sample_episodes(labels, ways=2, shots=1, queries=2, episodes=5, seed=0)
    report = evaluate(x, labels, episodes, keep_scores=True)
    assert report.accuracy == 1 and 10 < fit_temperature(report, episodes) < math.exp(12.1)


def test_scores_must_have_been_kept() -> None:
    x, labels = table(0)
    episodes = sample_episodes(labels, ways=2, shots=1, queries=2, episodes=5, seed=0)
    report = evaluate(x, labels, episodes)
    for read in (fit_temperature, measure_calibration):
        with pytest.raises(InputError, match="keep_scores=True"):
            read(report, episodes)
    with pytest.raises(InputError, match="scores and unknown queries"):
        unknown_detection(dataclasses.replace(report, scores=np.zeros((5, 4, 2))), episodes)


@pytest.mark.parametrize("seed", range(4))
def test_detection_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, unknown = rng.integers(0, 6, (7, 23)) + 1.0, rng.integers(0, 5, (7, 11)).astype(float)
    truth = np.repeat([1, 0], [23, 11])
    for e, (area, accepted) in enumerate(
        zip(area_under_roc(known, unknown), false_positives_at_95(known, unknown), strict=True)
    ):
        values = np.concatenate([known[e], unknown[e]])
        assert area == pytest.approx(roc_auc_score(truth, values))
        false, true, _ = roc_curve(truth, values, drop_intermediate=False)
        assert accepted == pytest.approx(false[true >= 0.95][0])


@pytest.mark.parametrize(("count", "accepted"), [(1, 1), (19, 19), (20, 19), (40, 38), (100, 95), (101, 96)])
def test_the_threshold_accepts_as_few_known_as_reach_95_percent(count: int, accepted: int) -> None:
    known = np.arange(count, dtype=float)[None]
    unknown = known.copy()  # one unknown beside every known: the share accepted tells the threshold
    assert false_positives_at_95(known, unknown)[0] == pytest.approx(accepted / count)


def test_open_episodes_hold_no_unknown_class_and_no_image_twice() -> None:
    _, labels = table(0, classes=8)
    episodes, unknown = sample_open_episodes(
        labels, ways=3, unknown_classes=2, shots=2, queries=4, episodes=200, seed=3
    )
    assert episodes.classes.shape == (200, 3) and unknown.shape == (200, 8)
    assert (np.diff(episodes.classes, axis=1) > 0).all()
    strange = labels[unknown]
    seen = np.zeros(8)
    for e in range(200):
        assert not set(strange[e]) & set(episodes.classes[e]) and len(set(strange[e])) == 2
        rows = np.concatenate([episodes.support[e].reshape(-1), episodes.query[e].reshape(-1), unknown[e]])
        assert len(set(rows)) == len(rows)
        assert (labels[episodes.support[e]] == episodes.classes[e][:, None]).all()
        seen[np.unique(strange[e])] += 1
    # Which class is unknown is drawn, not given by the order of classes: 2 of 8 in each of 200 episodes.
    assert (np.abs(seen - 50) < 5 * math.sqrt(200 * 0.25 * 0.75)).all()
    assert episodes.sampler["unknown_classes"] == 2
    with pytest.raises(InputError, match="expected 1 unknown class or more, got 0"):
        sample_open_episodes(labels, ways=3, unknown_classes=0, shots=1, queries=1, episodes=1, seed=0)
    with pytest.raises(InputError, match="expected at least 9 classes"):
        sample_open_episodes(labels, ways=3, unknown_classes=6, shots=1, queries=1, episodes=1, seed=0)


def test_unknown_queries_are_told_apart_and_do_not_count() -> None:
    x, labels = table(5, classes=8, spread=0.3)
    episodes, unknown = sample_open_episodes(labels, ways=3, unknown_classes=2, shots=3, queries=4, episodes=60, seed=0)
    report = evaluate(x, labels, episodes, unknown=unknown, keep_scores=True)
    plain = evaluate(x, labels, episodes, keep_scores=True)
    assert report.scores is not None and plain.scores is not None
    assert report.scores.shape == (60, 20, 3) and report.accuracy == plain.accuracy
    np.testing.assert_allclose(report.scores[:, :12], plain.scores, atol=1e-5)
    by = {found.measure: found for found in unknown_detection(report, episodes)}
    scores = report.scores.astype(np.float64)
    p = np.exp(10 * scores) / np.exp(10 * scores).sum(axis=2, keepdims=True)
    for measure, values in (("probability", p.max(axis=2)), ("score", scores.max(axis=2))):
        areas = [roc_auc_score(np.repeat([1, 0], [12, 8]), values[e]) for e in range(60)]
        assert by[measure].auroc == pytest.approx(np.mean(areas), abs=1e-6)
        assert by[measure].auroc_ci95 == pytest.approx(1.96 * np.std(areas, ddof=1) / math.sqrt(60), abs=1e-6)
    assert by["score"].auroc > 0.95 and by["score"].fpr95 < 0.3
    assert set(by["score"].to_json()) == {"measure", "auroc", "auroc_ci95", "fpr95", "fpr95_ci95"}


def test_paired_differences_are_narrower_than_their_parts() -> None:
    first, _ = run(6)
    second, _ = run(6, center="none")
    found = paired(first, second)
    differences = first.per_episode - second.per_episode
    assert found.mean == pytest.approx(differences.mean())
    assert found.ci95 == pytest.approx(1.96 * differences.std(ddof=1) / math.sqrt(40))
    assert first.ci95 is not None and found.ci95 < first.ci95
    x, labels = table(6)
    few = evaluate(x, labels, sample_episodes(labels, ways=3, shots=2, queries=5, episodes=3, seed=0))
    with pytest.raises(InputError, match="got 40 and 3: they cannot be paired"):
        paired(first, few)
