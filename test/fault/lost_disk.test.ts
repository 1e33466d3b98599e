import { lostDisk } from "./lost_disk.ts";
import { testShort } from "./short.ts";

testShort(lostDisk);
