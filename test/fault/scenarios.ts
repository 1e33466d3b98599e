/** All fault scenarios, in the order in which they run. */

import { clocks } from "./clocks.ts";
import { drain } from "./drain.ts";
import { journal } from "./journal.ts";
import { kills } from "./kills.ts";
import { lostDisk } from "./lost_disk.ts";
import { network } from "./network.ts";
import { outage } from "./outage.ts";
import { phantoms } from "./phantoms.ts";
import { reports } from "./reports.ts";
import type { Scenario } from "./scenario.ts";

export const SCENARIOS: readonly Scenario[] = [
  drain,
  kills,
  reports,
  network,
  clocks,
  journal,
  outage,
  phantoms,
  lostDisk,
];
