#!/usr/bin/env bash
# Fetch the authors' Colored MNIST files (mnist_10color_jitter_var_*.npy) from Google Drive.
#
# Usage: bash scripts/download_dataset.sh [TARGET_DIR]     (default: data/colored_mnist in this repository)
#
# Training does not need them. An interrupted download resumes when the script runs again. A file gets its final name
# only after it was unpacked and checked; files that are already there are kept.
set -euo pipefail

readonly file_id=1NSv4RCSHjcHois3dXjYw_PaLIoVlLgXu
readonly page="https://drive.google.com/file/d/$file_id"
readonly variances=(0.020 0.025 0.030 0.035 0.040 0.045 0.050)
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
readonly root

if [[ $# -gt 1 || ${1:-} == -* ]]; then
    echo "Usage: bash scripts/download_dataset.sh [TARGET_DIR]" >&2
    exit 2
fi
readonly target=${1:-$root/data/colored_mnist}
readonly archive=$target/official_archive.part

give_up() {
    cat >&2 <<MESSAGE

Download failed: $1
Training works without it: lntl renders the same data from the digit strokes in its package. Just run: make train
To use the authors' files anyway, open $page in a browser, unpack the archive and
put mnist_10color_jitter_var_0.030.npy (or another variance) into $target/
MESSAGE
    exit 1
}

# Print the first of these programs that exists; print nothing if none exists.
first_of() {
    local program
    for program in "$@"; do
        command -v -- "$program" && return
    done
    return 0
}

missing=0
for variance in "${variances[@]}"; do
    [[ -e $target/mnist_10color_jitter_var_$variance.npy ]] || missing=$((missing + 1))
done
if ((missing == 0)); then
    echo "All ${#variances[@]} files are already in $target: nothing to do."
    exit 0
fi

gdown=$(first_of gdown "$root/.venv/bin/gdown")
python=$(first_of "$root/.venv/bin/python" python3 python)
[[ -n $gdown ]] || give_up "gdown is not installed (run make install, or pip install gdown)."
[[ -n $python ]] || give_up "python is not installed."
if ! mkdir -p -- "$target" 2>/dev/null || [[ ! -w $target ]]; then
    give_up "$target cannot be written to."
fi

echo "Fetching the archive with all variances (over 1 GB) into $target ..."
"$gdown" --continue -O "$archive" "$file_id" ||
    give_up "gdown did not get the archive (no network, or Google Drive refused; the message of gdown is above). The part that was downloaded is kept; the same command resumes the download."
[[ -s $archive ]] || give_up "gdown left no file behind."

scratch=$(mktemp -d -- "$target/.unpack.XXXXXX")
trap 'rm -rf -- "$scratch"' EXIT
# Exit code 0: all files are in place. 3: the archive is damaged and is removed. Others: the archive may be good (for
# example if the disk was full) and is kept.
status=0
"$python" "$root/scripts/unpack_archive.py" "$archive" "$scratch" "$target" || status=$?
if ((status == 3)); then
    rm -f -- "$archive"
    give_up "the downloaded file is not the expected archive (see above), so it was deleted. Google Drive may have sent an error page, or the download was interrupted: try again later."
fi
((status == 0)) || give_up "the archive could not be unpacked (see above). It is kept as $archive for the next try."
rm -f -- "$archive"
echo "Done: training reads these files if data.path is $target."
