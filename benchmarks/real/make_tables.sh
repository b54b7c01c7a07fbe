#!/bin/bash
# Make the tables of benchmarks/real from the downloads in data/: bash benchmarks/real/make_tables.sh [NAME ...]
# Run it in the folder that contains data/ (docs/DATA_SETS.md describes its content). Existing tables are kept.
set -euo pipefail
make() {
  [ -e "data/$1.csv" ] || lntl data make "$2" "data/$3" "data/$1.csv" "${@:4}"
}
for name in "${@:-dogs_and_cats counterexamples utkface celeba isic bar}"; do
  for experiment in $name; do
    case $experiment in
      dogs_and_cats) for set in tb1 tb2; do make "dogs_and_cats_$set" dogs_and_cats dogs_and_cats --train $set; done ;;
      counterexamples)
        for n in 10 50 100; do make "dogs_and_cats_tb1_$n" dogs_and_cats dogs_and_cats --train tb1 --counterexamples $n; done ;;
      utkface) for set in eb1 eb2; do make "utkface_$set" utkface utkface --train $set; done ;;
      celeba) make celeba celeba celeba ;;
      isic) make isic isic isic --lists data/debiasing-skin ;;
      bar) make bar bar bar ;;
      *) echo "$experiment: no such experiment" >&2; exit 2 ;;
    esac
  done
done
