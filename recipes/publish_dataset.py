"""Materialise a noisy data set at several rates: Parquet, one configuration per rate, with a data card.

    python recipes/publish_dataset.py --name hf_noise/docs-noisy --ratios 0 0.1 0.3 0.5 1.0 --output
    runs/docs-noisy

Offline, half a minute on two cores. Add `--push_to_hub user/docs-noisy` to publish it; people load it without
hf_noise: `load_dataset("user/docs-noisy", "r0.5")`. Started again, it takes what is built already from the
cache of `datasets`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hf_noise.noise import rates

# Others of hf_noise have no tokens of their own (noisy) or no noise (packed).
TEXT_BUILDERS = ("hf_noise/docs-noisy", "hf_noise/owt-noisy")
# Data sets whose licence and language are known; of other sources the user says them.
KNOWN = {"embedded/docs-text": {"license": "psf-2.0", "language": "en"}}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default=TEXT_BUILDERS[0], choices=TEXT_BUILDERS, help="a builder of noisy text")
    parser.add_argument(
        "--ratios", type=float, nargs="+", default=[0.0, 0.1, 0.3, 0.5, 1.0], help="r, noisy per clean token"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/docs-noisy"), help="folder to write, new or of this recipe"
    )
    parser.add_argument(
        "--source", help="corpus: local file, glob, folder or Hub id (default: the builder's)"
    )
    parser.add_argument("--tokenizer", help="name or folder of a tokenizer (default: the builder's)")
    parser.add_argument("--block_size", type=int, help="tokens per row (default: the builder's)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument(
        "--num_proc", type=int, help="processes that build; the result is the same for any number"
    )
    parser.add_argument("--license", help="Hub id of the licence of the source, such as cc0-1.0")
    parser.add_argument("--language", help="language of the source, such as en")
    parser.add_argument("--push_to_hub", metavar="REPO", help="owner/name of a data set on the Hub")
    parser.add_argument("--private", action="store_true", help="make the repository private if it is new")
    parser.add_argument("--dry_run", action="store_true", help="print the settings and stop")
    args = parser.parse_args(argv)
    args.ratios = list(dict.fromkeys(rates.check_ratio(ratio) for ratio in args.ratios))
    return args


def main(argv: Sequence[str] | None = None) -> Path | None:
    args = parse(argv)
    print(f"{args.name} -> {args.output}, seed {args.seed}")
    for ratio in args.ratios:
        print(f"  r{ratio:<6g} e = {rates.error_rate(ratio):.4f}")
    if args.dry_run:
        return None

    # After the dry run: these imports take seconds.
    import datasets

    from hf_noise.data import hook
    from hf_noise.hub.data_card import COLUMNS
    from hf_noise.hub.data_folder import describe_config, write_config, write_data_folder
    from hf_noise.hub.push import push_data_folder
    from hf_noise.noise.base import noise_of_description
    from hf_noise.reports.record import DataRecord

    hook.install()
    asked = {name: getattr(args, name) for name in ("source", "tokenizer", "block_size")}
    asked = {name: value for name, value in asked.items() if value is not None}
    configs = []
    for ratio in args.ratios:
        builder = datasets.load_dataset_builder(args.name, r=ratio, seed=args.seed, **asked)
        builder.download_and_prepare(num_proc=args.num_proc)
        splits = builder.as_dataset()
        config_name = f"r{ratio}"
        write_config(splits, args.output, config_name)
        configs.append(describe_config(splits, config_name, noise_of_description(builder.info.description)))
        print(f"  {config_name}: realised {configs[-1]['noise']['realised']}")
    builder.tokenizer.save_pretrained(args.output / "tokenizer")

    source = builder.config.source
    stated = KNOWN.get(source, {"license": None, "language": None})
    record = DataRecord(
        name=args.push_to_hub or args.output.name,
        builder=args.name,
        source=source,
        data={
            "vocab_size": builder.vocab_size(),
            "block_size": builder.config.block_size,
            "seed": args.seed,
            "epoch": 0,
        },
        columns=COLUMNS,
        configs=configs,
        license=args.license or stated["license"],
        language=args.language or stated["language"],
        has_tokenizer=True,
    )
    write_data_folder(args.output, record)
    print(f"wrote {args.output / 'README.md'}")
    if args.push_to_hub:
        info = push_data_folder(args.output, args.push_to_hub, private=args.private or None)
        print(f"pushed: {info.commit_url}")
    return args.output


if __name__ == "__main__":
    main()
