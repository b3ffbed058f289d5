"""Writes the first images of a COCO annotation file that have objects, with all that is in them.

python tools/coco_subset.py annotations/instances_train2017.json subset.json --images=20
"""

import argparse
import json


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="JSON in COCO's format")
    parser.add_argument("output", help="JSON to write")
    parser.add_argument("--images", type=int, required=True, help="how many, by rising id")
    args = parser.parse_args()
    with open(args.source) as file:
        content = json.load(file)
    annotated = {a["image_id"] for a in content["annotations"] if not a["iscrowd"]}
    kept = sorted(annotated)[: args.images]
    if len(kept) < args.images:
        parser.error(f"--images must be at most those with objects, {len(kept)} of {args.source}.")
    for name, key in (("images", "id"), ("annotations", "image_id")):
        content[name] = [record for record in content[name] if record[key] in set(kept)]
    with open(args.output, "w") as file:
        json.dump(content, file)


if __name__ == "__main__":
    main()
