import { reports } from "./reports.ts";
import { testShort } from "./short.ts";

testShort(reports);
