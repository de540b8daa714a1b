"""Write the demo's sample set: python data/make_sample.py [--out data/sample] [--seed 0]."""

import argparse
from pathlib import Path

from rayrlhf.demo.sample import make_sample, sample_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "sample", help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, text in sample_files(make_sample(args.seed)).items():
        (args.out / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"{name}: {text.count(chr(10))} rows")


if __name__ == "__main__":
    main()
