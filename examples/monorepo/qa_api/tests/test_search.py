"""Stays out of the image: see `exclude` in image.toml."""

from qa_api.search import best_passage


def test_the_passage_with_the_most_common_words_wins():
    transcript = "Ships carry boxes.\n\nA digest names the bytes of a layer."
    assert best_passage(transcript, "What does a digest name?") == "A digest names the bytes of a layer."
