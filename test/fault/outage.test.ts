import { outage } from "./outage.ts";
import { testShort } from "./short.ts";

testShort(outage);
