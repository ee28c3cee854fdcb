from mezzotint.runtime.log import progress_lines


def test_progress_is_logged_now_and_then_with_the_time_that_is_left():
    said, seconds = [], iter([100.0, 110.0, 120.0, 121.0, 140.0])
    watch = progress_lines("CLIP of digits", 1_000, said.append, lambda: next(seconds))
    for seen in (100, 150, 200, 205, 300):
        watch(seen)
    # 100 images in 20 s leave 800 in 160 s; then 200 in 40 s leave 700 in 140 s.
    assert said == [
        "CLIP of digits: 200 of 1,000 images, 160 s left",
        "CLIP of digits: 300 of 1,000 images, 140 s left",
    ]
