#!/usr/bin/env bash
# Trains the rows of tables 1 to 3 on MNIST and CIFAR-10, and on translated MNIST, within the
# budget of cpu_budget.flags. Stopped, it goes on where it was; started twice, two share the work.
#
#     experiments/paper/cpu.sh DATA [mnist|cifar10|translated|maps|variants|more]...
set -euo pipefail
cd "$(dirname "$0")/../.."
data=$1
shift
export TF_CPP_MIN_LOG_LEVEL=3

row() {
  local file=$1
  shift
  "${PYTHON:-.venv/bin/python}" run_experiment.py --flagfile="experiments/paper/$file.flags" \
    --flagfile=experiments/paper/cpu_budget.flags --data_dir="$data" "$@" || true
}

for part in "${@:-mnist cifar10 translated maps variants more}"; do
  for name in $part; do
    if [[ $name == maps ]]; then
      for kind in fixed input_dependent; do
        row "figS7_mnist_maps_$kind" --num_seeds=1 --model_dir="runs/maps_$kind"
      done
      continue
    fi
    if [[ $name == variants ]]; then
      row figS1_cifar10_glorot_uniform
      row figS1_cifar10_random_normal
      row figS2_cifar10_full --spatial_ranks=4
      continue
    fi
    if [[ $name == more ]]; then
      # Is the order of the methods one of a budget too small? Four times the steps may tell, on
      # four times the images and on the same ones.
      for budget in --train_examples=8000 --epochs=32; do
        row cifar10_convolution $budget
        row cifar10_locally_connected_layer3 $budget
      done
      row cifar10_lrlc_layer3 --train_examples=8000 --spatial_ranks=4
      continue
    fi
    if [[ $name == translated ]]; then
      row figS6_mnist_translated_convolution
      row figS6_mnist_translated_lrlc --spatial_ranks=4
      row figS6_mnist_translated_input_dependent --spatial_ranks=4
      continue
    fi
    row "${name}_convolution"
    row "${name}_lrlc_layer3" --spatial_ranks=2,4,8
    row "${name}_input_dependent_layer3" --spatial_ranks=4
    row "${name}_spatial_bias_layer3"
    row "${name}_locally_connected_layer3"
    row "${name}_locally_connected_layer3_conv_init"
    row "${name}_coord_conv"
    row "${name}_wide_layer3" --spatial_ranks=2,4
  done
done
