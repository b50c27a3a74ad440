"""Steps are plain functions as long as no DAG is being defined."""

import pipeline


def test_the_line_is_near_to_what_was_held_back() -> None:
    model, error = pipeline.train(pipeline.load(), held_back=2)
    assert 0.3 < model["slope"] < 0.5
    assert error < 1


def test_the_dag_is_defined() -> None:
    assert pipeline.stopping_distance.task_ids == ["load", "train", "report"]
