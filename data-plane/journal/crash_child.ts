/** For the test that kills it: journals settlements as fast as it can and says on stdout which are written. */

import { FileJournal } from "./file_journal.ts";
import { createBootDir, thisProcess } from "./boot_dir.ts";
import { countingIds, settlement, SILENT } from "./testing.ts";

const [root, bootId] = process.argv.slice(2) as [string, string];
const dir = createBootDir(root, bootId, thisProcess("node_of_the_child"));
const journal = new FileJournal({ dir, log: SILENT, now: Date.now, newId: countingIds(), segmentBytes: 64 * 1024 });

journal.intent({ ...settlement(0), id: "usg_live" });
journal.progress({ ...settlement(5), id: "usg_live" });
journal.intent({ ...settlement(0), id: "usg_silent" });

let n = 0;
function turn(): void {
  for (let k = 0; k < 20; k++) {
    const mine = ++n;
    journal.settle(settlement(mine), () => process.stdout.write(`usg_${mine}\n`));
  }
  setImmediate(turn);
}
turn();
