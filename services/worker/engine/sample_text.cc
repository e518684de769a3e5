#include "services/worker/engine/query_moments.h"

namespace quire::worker {

const std::string_view kSampleText =
    R"text(The ferry left the harbour a little after six, when the fog had lifted enough for the captain to see the second buoy. Nobody spoke much. A woman in a green coat held a basket of eggs on her knees and counted them under her breath, as though one of them might have slipped away between the market and the pier. Behind her two brothers were arguing, quietly and without heat, about whether their grandfather had built the old bridge or had only painted it. "He told me himself," said the elder, "that the stones came from the quarry at the top of the valley, and that it took them three summers." The younger shook his head. Stones are heavy, and memories are light; it is the light things that travel furthest.

How to replace the filter

1. Switch the pump off and wait until the pressure gauge reads less than 0.2 bar.
2. Close both valves (A and B in figure 3). Turn the cover a quarter to the left and lift it.
3. Take the old filter out. Water that is left in the housing, about 350 ml, is harmless.
4. Wipe the seal, put the new filter in with its arrow pointing down, and close the cover until it clicks.

If the gauge does not rise above 1.5 bar within two minutes, repeat step 4. A filter lasts for 12,000 litres or six months, whichever comes first; the counter in the menu "Service" shows what remains. Do not use solvents. See also: Maintenance, Error codes, Warranty.

In 1854 the committee published its report. It had asked 214 physicians in nine counties for their records, and 163 had answered. The report makes three claims: first, that the illness follows the water rather than the air; second, that households which boiled what they drank were spared in four cases out of five; and third, that no remedy then in use shortened it by a single day. The last of these was the least welcome. Parliament debated the matter twice, in March and again in November, without a vote. It was left to the cities to act, and some did: pipes were laid, wells were closed, and an inspector was paid to taste what nobody else would.

```python
import csv
from collections import defaultdict

def totals_by_month(path, *, skip_empty=True):
    """Sum the column `amount` of a file for each month of `date`."""
    totals = defaultdict(float)
    with open(path, newline="") as source:
        for row in csv.DictReader(source):
            if skip_empty and not row["amount"]:
                continue
            month = row["date"][:7]
            totals[month] += float(row["amount"].replace(",", "."))
    return dict(sorted(totals.items()))

if __name__ == "__main__":
    for month, total in totals_by_month("ledger.csv").items():
        print(f"{month}: {total:10.2f}")
```

The function reads the file line by line, so it needs little memory; a missing column raises a KeyError that names it. For very large files, or where the dates are not in order, a database serves better: `SELECT substr(date, 1, 7) AS month, SUM(amount) FROM ledger GROUP BY month ORDER BY month;` gives the same answer.

Question: A train goes 180 km in two hours and a half and then, after a stop of thirty minutes, another 96 km in one hour and twenty minutes. What was its average speed over the whole journey?
Answer: The whole way is 180 + 96 = 276 km. The time is 2.5 h + 0.5 h + 1.333 h = 4.333 h. So the average speed is 276 / 4.333, which is close to 63.7 km/h.
)text";

}  // namespace quire::worker
