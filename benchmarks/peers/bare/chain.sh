# The floor: five Python processes, one after another, and nothing else.
set -e
source=-
for i in 1 2 3 4 5; do
  "$STEP_PYTHON" -c "$STEP" "$source" "$i.txt"
  source=$i.txt
done
