#!/usr/bin/env bash
# The cases, in the cluster that cluster.sh starts. Called by run.sh; arguments are the cases to run.
set -uo pipefail
source /soup/tests/slurm/cluster.sh

POOL=/soup/tests/pools/vit-fashion
# The digest of the greedy soup as PyTorch finds it.
EXPECTED=$(sed -n '/"greedy":/,/}/s/.*"sha256": "\(.*\)".*/\1/p' "$POOL/soups.json")
# How long a job may take to its end, waits of Slurm included.
JOB_SECONDS=240
# A fault comes when the log says that this has been decided: a quarter of the ranking, and a few trials.
EARLY='ranking  m03 '
MIDWAY='trial  2 '
# Command lines, from their beginning: srun's contains the worker's.
WORKER='^[^ ]*soupctl worker '
COORDINATOR='^[^ ]*soupctl cook '
DAEMON='^slurmd '

failures=()

fail() { failures+=("$*"); echo "    FAILED: $*" >&2; }

# The quick start's pool. A loss that Slurm has to notice needs a longer run, which is one with more to report.
cook_file() {
    local sets=1 k
    [[ $(declare -f "case_$1") != *noticed* ]] || sets=12
    printf 'pool: %s\nvalidation: %s/data/val.parquet\ntest:\n' "$POOL" "$POOL"
    for ((k = 1; k <= sets; k++)); do echo "  test$k: $POOL/data/test.parquet"; done
}

# Submits the script as a user does, from a folder of its own; sets job, folder and log.
submit() {
    folder=/tmp/trials/$1.$2
    mkdir -p "$folder"
    cd "$folder" || exit 1
    cook_file "$1" >cook.yaml
    job=$(SOUPCTL=/usr/local/bin/soupctl SOUP_THREADS=1 SOUP_MEMORY=200MiB SOUP_CONNECT_TIMEOUT=5s sbatch --parsable \
        --nodes=3 --ntasks-per-node=1 --cpus-per-task=2 --mem=1000 --time=30 \
        /soup/deploy/slurm/soup.sbatch -f cook.yaml --recipe greedy --min-workers 3 --output soup)
    log=$folder/slurm-$job.out
}

logged() { grep -qs -- "$1" "$log"; }

# Waits until the run has come so far; a fault after its end would test nothing.
reached() {
    within "$JOB_SECONDS" logged "$1" || { fail "the log never said '$1'"; return 1; }
    job_state_is "$job" RUNNING || { fail "the job was over before the fault"; return 1; }
}

# What a fault that Slurm has to notice leaves: it did so while the job was running.
noticed() {
    within 60 node_is_down "$1" || { fail "Slurm did not notice the loss of n$1"; return 1; }
    job_state_is "$job" "${2:-RUNNING}" || fail "the job was $(job_field "$job" JobState) when n$1 was declared down"
}

# The end of every case but one: completed, the same soup, after so many starts over, in one run.
expect_soup() {
    within "$JOB_SECONDS" job_state_is "$job" 'COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|OUT_OF_MEMORY' || true
    job_state_is "$job" COMPLETED || { fail "the job is $(job_field "$job" JobState)"; return; }
    local restarts length found runs
    restarts=$(job_field "$job" Restarts)
    [[ $restarts == "$1" ]] || fail "the job started over $restarts times, expected $1"
    # The data section, after a header whose length the first 8 bytes tell.
    length=$(od -A n -t u8 -N 8 "$folder/soup/model.safetensors" | tr -d ' ')
    found=$(tail -c "+$((length + 9))" "$folder/soup/model.safetensors" | sha256sum | cut -d ' ' -f 1)
    [[ $found == "$EXPECTED" ]] || fail "the soup is $found, expected $EXPECTED"
    runs=("$folder/soup-state/$job/runs/"*)
    [[ ${#runs[@]} == 1 && -d ${runs[0]} ]] || fail "one run expected in the journal: ${runs[*]}"
}

case_undisturbed() {
    expect_soup 0
}

case_worker_killed() {
    reached "$EARLY" && kill_on_node 2 "$WORKER"
    expect_soup 0
}

# The one beside the coordinator, and then a second one.
case_two_workers_killed() {
    reached "$EARLY" && kill_on_node 1 "$WORKER"
    reached "$MIDWAY" && kill_on_node 3 "$WORKER"
    expect_soup 0
}

case_daemon_and_worker_killed() {
    reached "$EARLY" && kill_on_node 3 "$DAEMON" && kill_on_node 3 "$WORKER" && noticed 3
    expect_soup 0
}

case_node_without_power() {
    reached "$EARLY" && power_off 2 && noticed 2
    expect_soup 0
}

# Nothing is closed, nothing is refused: messages are gone.
case_node_cut_off() {
    reached "$EARLY" && ip link set n3 down && noticed 3
    expect_soup 0
}

# What Slurm sends before the time limit, and as a warning of preemption.
case_sigterm_to_the_script() {
    reached "$MIDWAY" && scancel --signal=TERM --batch "$job"
    expect_soup 1
}

# SIGTERM to every process of the job at once.
case_requeued() {
    reached "$MIDWAY" && scontrol requeue "$job"
    expect_soup 1
}

case_requeued_twice() {
    reached "$EARLY" && scontrol requeue "$job"
    within 60 job_state_is "$job" PENDING
    within 60 job_state_is "$job" RUNNING
    reached "$MIDWAY" && scontrol requeue "$job"
    expect_soup 2
}

case_coordinator_killed() {
    reached "$MIDWAY" && kill_on_node 1 "$COORDINATOR"
    expect_soup 1
}

# The script and the coordinator are gone too. Slurm takes the node from the job and lets the rest go on; the workers ask for the requeue.
case_first_node_without_power() {
    reached "$MIDWAY" && power_off 1 && noticed 1 '.*'
    within 90 job_state_is "$job" PENDING || fail "the job was not requeued: $(job_field "$job" JobState)"
    start_node 1
    expect_soup 1
}

# A person's wish is not undone.
case_cancelled() {
    reached "$MIDWAY" && scancel "$job"
    within 60 job_state_is "$job" CANCELLED || fail "the job is $(job_field "$job" JobState)"
    within 60 all_idle || fail "something of the job is left"
    job_state_is "$job" CANCELLED || fail "the job came back: $(job_field "$job" JobState)"
    [[ ! -e $folder/soup ]] || fail "a cancelled job has left a soup"
}

# Runs one case once; true if nothing failed.
run_case() {
    local name=$1 round=$2 begun=$SECONDS
    failures=()
    echo "== $name, round $round"
    submit "$name" "$round"
    "case_$name"
    if ((${#failures[@]})); then
        { sed 's/^/    | /' "$log"; tail -n 30 /tmp/slurm/ctld.log | sed 's/^/    ctld| /'; } >&2
    fi
    echo "   $((SECONDS - begun)) s"
    [[ -d /keep ]] && cp -r "$folder" /keep/
    repair || fail 'the cluster did not come back'
    ((${#failures[@]} == 0))
}

cases=("$@")
if ((${#cases[@]} == 0)); then
    mapfile -t cases < <(declare -F | sed -n 's/^declare -f case_//p')
    # Sorted by name otherwise; the one that nothing happens to comes first.
    cases=(undisturbed "${cases[@]/undisturbed/}")
fi

start_cluster || exit 69
echo "$(slurmd -V), 3 nodes; expected soup $EXPECTED"
table='' bad=0
for name in "${cases[@]}"; do
    [[ -n $name ]] || continue
    declare -F "case_$name" >/dev/null || { echo "there is no case $name" >&2; exit 2; }
    good=0
    for ((round = 1; round <= ROUNDS; round++)); do
        if run_case "$name" "$round"; then ((good += 1)); else bad=1; fi
    done
    table+=$(printf '%-26s  %d/%d' "${name//_/ }" "$good" "$ROUNDS")$'\n'
done
[[ -d /keep ]] && cp -r /tmp/slurm/*.log /keep/
echo
printf '%-26s  %s\n' case 'completed with the same soup'
printf '%s' "$table"
exit "$bad"
