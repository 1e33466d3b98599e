/** Everything that can go wrong, each with its way back. */

import type { SimNode } from "./node.ts";
import { CALM, type Weather } from "./network.ts";
import type { World } from "./world.ts";

export type Fault =
  | "kill"
  | "kill_at_write"
  | "power"
  | "disk_gone"
  | "rot"
  | "disk_full"
  | "disk_broken"
  | "sync_fails"
  | "freeze"
  | "clock_jump"
  | "restart"
  | "partition"
  | "storm"
  | "replica_dies"
  | "commit_unanswered"
  | "database_away"
  | "database_clock";

/** Most often what happens most often. */
export const MIXED: readonly Fault[] = [
  "kill",
  "kill",
  "kill_at_write",
  "kill_at_write",
  "power",
  "power",
  "disk_gone",
  "rot",
  "disk_full",
  "disk_broken",
  "sync_fails",
  "freeze",
  "clock_jump",
  "restart",
  "partition",
  "partition",
  "storm",
  "storm",
  "replica_dies",
  "commit_unanswered",
  "commit_unanswered",
  "database_away",
  "database_clock",
];

const STORM: Weather = { loss: 0.2, twice: 0.2, delayMs: 150, slow: 0.1 };

/** A killed node comes back after this, or sooner. */
const DOWN_MS_MAX = 15_000;

function startLater(world: World, node: SimNode, ms: number): void {
  world.scheduler.after(ms, () => {
    node.start();
    // A full disk keeps it from starting.
    if (node.boot === null) startLater(world, node, 3_000);
  });
}

function down(world: World, node: SimNode, how: () => void): void {
  how();
  startLater(world, node, world.random.between(100, DOWN_MS_MAX));
}

function diskTrouble(world: World, node: SimNode, trouble: "ENOSPC" | "EIO" | "sync", ms: number): void {
  node.disk.trouble = trouble;
  node.troubled = true;
  world.scheduler.after(ms, () => {
    if (node.disk.trouble === trouble) node.disk.trouble = null;
  });
}

function onNode(world: World, fault: Fault, node: SimNode): void {
  const { random, scheduler } = world;
  switch (fault) {
    case "kill":
      return down(world, node, () => node.kill());
    case "kill_at_write":
      node.killAtWrite();
      return startLater(world, node, random.between(2_000, DOWN_MS_MAX));
    case "power":
      return down(world, node, () => node.cutPower());
    case "disk_gone":
      return down(world, node, () => {
        node.loseDisk();
        world.lostDisks.add(node.name);
      });
    case "rot":
      // While it is down, or else nothing is read of what rots.
      return down(world, node, () => {
        node.kill();
        if (node.rot()) world.count("bits_rotten");
      });
    case "disk_full":
      return diskTrouble(world, node, "ENOSPC", random.between(500, 8_000));
    case "disk_broken":
      return diskTrouble(world, node, "EIO", random.between(500, 4_000));
    case "sync_fails":
      return diskTrouble(world, node, "sync", random.between(500, 4_000));
    case "freeze":
      return node.freeze(random.chance(0.5) ? 60_000 : random.between(500, 20_000));
    case "clock_jump":
      return node.jump(random.pick([-3_600_000, -5_000, 5_000, 70_000, 3_600_000]));
    case "restart":
      world.stopNode(node, () => startLater(world, node, random.between(50, 2_000)));
      return;
    case "partition":
      world.network.cut(node.name);
      scheduler.after(random.between(500, random.chance(0.2) ? 90_000 : 12_000), () => world.heal(node));
      return;
    default:
      return onControl(world, fault);
  }
}

function onControl(world: World, fault: Fault): void {
  const { random, scheduler, control, network } = world;
  const replica = random.pick(control.replicas);
  switch (fault) {
    case "storm":
      network.setWeather(STORM);
      scheduler.after(random.between(1_000, 15_000), () => network.setWeather(CALM));
      return;
    case "replica_dies":
      control.kill(replica);
      scheduler.after(random.between(500, 8_000), () => control.revive(replica));
      return;
    case "commit_unanswered":
      replica.dies = random.pick(["before", "after"] as const);
      scheduler.after(random.between(2_000, 8_000), () => control.revive(replica));
      return;
    case "database_away":
      control.setDatabase(false);
      scheduler.after(random.between(500, 20_000), () => control.setDatabase(true));
      return;
    default:
      control.dbSkewMs += random.pick([-3_600_000, 3_600_000, 30_000]);
  }
}

export function strike(world: World, fault: Fault, given?: SimNode): void {
  const node = given ?? world.random.pick(world.nodes);
  world.violations.note(`fault ${fault} ${node.name}`);
  world.count(`fault_${fault}`);
  onNode(world, fault, node);
}

/** All is well again, and stays so. */
export function healAll(world: World): void {
  const { control, network, nodes } = world;
  network.setWeather(CALM);
  for (const replica of control.replicas) {
    replica.dies = null;
    control.revive(replica);
  }
  control.setDatabase(true);
  for (const node of nodes) {
    world.heal(node);
    node.disk.trouble = null;
    node.disk.dieAtWrite = null;
    node.start();
  }
}
