import numpy as np
from media import moving_frames, write_frames, write_video

from adatosk.throughput import compare, main, plain_folder, plain_video
from adatosk.video import read_clip


def test_the_plain_way_reads_the_same_frames_and_is_slower(tmp_path, capsys):
    frames = moving_frames(120, 224, 224)
    video = write_video(tmp_path / "a.mp4", frames, gop=250)
    folder = write_frames(tmp_path / "a", frames, ".jpg")
    assert np.abs(plain_video(video, 64).astype(int) - read_clip(video, size=64)).mean() < 2
    assert np.abs(plain_folder(folder, 64).astype(int) - read_clip(folder, size=64)).mean() < 4
    table = compare([video, folder], size=112, repeats=5).set_index("kind")
    assert table.loc["video", "ratio"] > 1.5
    assert table.loc["folder", "ratio"] > 2
    # Frames of this very size leave nothing to save but around libjpeg's own work: 2.1 to 2.8 was measured.
    assert compare([folder], size=224, repeats=5)["ratio"].item() > 1.8
    main([str(folder), "--size", "32", "--repeats", "1"])
    assert "plain_clips_per_second" in capsys.readouterr().out
