/**
 * PURE. The blocks of one streamed message. Messages allows one open block at a time, chat does not: what belongs to another
 * block waits until the open one can be closed.
 */

import type { HubContext } from "../hub.ts";
import { toolUseId } from "./answer.ts";
import { JsonEnd } from "./json_end.ts";
import { longNames } from "./names.ts";
import { frame } from "./frames.ts";

/** What waits is kept up to so many characters; beyond, the open block is closed as it is and what is late for it is lost. */
export const WAITING_CHARS_MAX = 8 * 1024 * 1024;

export type TextKind = "text" | "refusal" | "thinking";

/** A block that was not closed yet. */
interface Block {
  readonly kind: TextKind | "tool";
  /** What was not sent yet. */
  waiting: string;
  /** Of thinking: all of it so far, to know it again when its signature comes. */
  text: string;
  signature: string;
  /** Nothing more can belong to it. */
  sealed: boolean;
  /** Of a call, in chat's words. */
  readonly call: number;
  id: string;
  name: string;
  readonly end: JsonEnd | null;
  /** Of redacted thinking: all that there is of it. */
  readonly redacted: string | null;
}

export class Blocks {
  /** Calls of tools so far. */
  calls = 0;
  private readonly context: HubContext;
  private readonly names: ReadonlyMap<string, string>;
  private open: Block | null = null;
  /** In the order they came in. */
  private readonly waiting: Block[] = [];
  private waitingChars = 0;
  /** A thinking block came whole. */
  private anySealed = false;
  private readonly callBlocks = new Map<number, Block>();
  /** Index of the open block, or of the last one closed. */
  private index = -1;

  constructor(context: HubContext) {
    this.context = context;
    this.names = longNames(context.request);
  }

  /** Text of a kind; the frames that can be sent now. */
  text(kind: TextKind, text: string): string {
    if (text === "") return "";
    let block = this.open?.kind === kind && !this.open.sealed ? this.open : null;
    block ??= this.waiting.findLast((each) => each.kind === kind && !each.sealed) ?? null;
    let piece = text;
    if (block === null) {
      // Sources put a break between thoughts, which blocks are apart already.
      if (kind === "thinking" && this.anySealed) piece = text.replace(/^\n+/, "");
      if (piece === "") return "";
      block = this.add(kind, -1);
    }
    if (kind === "thinking") block.text += piece;
    return this.feed(block, piece);
  }

  /** A whole thinking block: the signature of what was streamed before, or a block of its own. */
  thinking(thinking: string, signature: string): string {
    const last = this.open?.kind === "thinking" ? this.open : this.waiting.findLast((each) => each.kind === "thinking");
    const known = last !== undefined && !last.sealed && thinking.startsWith(last.text);
    const block = known ? last : this.add("thinking", -1);
    const rest = thinking.slice(block.text.length);
    block.text = thinking;
    block.signature = signature;
    block.sealed = true;
    this.anySealed = true;
    return this.feed(block, rest);
  }

  /** A block that is whole as it is: sent once the open one is closed. */
  redacted(data: string): string {
    this.add("thinking", -1, data).sealed = true;
    return this.advance();
  }

  /** @param call the index that chat gives the call */
  tool(call: number, id: string, name: string, json: string): string {
    let block = this.callBlocks.get(call);
    if (block === undefined) {
      block = this.add("tool", call);
      this.callBlocks.set(call, block);
      this.calls++;
    }
    // Id and name come once; some servers repeat them.
    if (block.id === "") block.id = id;
    if (block.name === "") block.name = name;
    // What comes after the end of a JSON value would only break it.
    if (block.end!.whole) return this.advance();
    block.end!.push(json);
    return this.feed(block, json);
  }

  /** Closes all blocks, those that waited in their order. */
  close(): string {
    let out = this.closeOpen();
    for (let next = this.waiting.shift(); next !== undefined; next = this.waiting.shift())
      out += this.start(next) + this.closeOpen();
    this.waitingChars = 0;
    return out;
  }

  private add(kind: Block["kind"], call: number, redacted: string | null = null): Block {
    const end = kind === "tool" ? new JsonEnd() : null;
    const block = { kind, waiting: "", text: "", signature: "", sealed: false, call, id: "", name: "", end, redacted };
    this.waiting.push(block);
    return block;
  }

  private feed(block: Block, text: string): string {
    if (block === this.open) return this.deltaOf(block, text) + this.advance();
    if (!this.waiting.includes(block)) return "";
    block.waiting += text;
    this.waitingChars += text.length;
    return this.advance();
  }

  /** Opens blocks that wait, as far as the ones before them can be closed. */
  private advance(): string {
    let out = "";
    while (this.waiting.length > 0 && (this.canClose() || this.waitingChars > WAITING_CHARS_MAX)) {
      const next = this.waiting[0]!;
      const nameless = next.kind === "tool" && next.name === "";
      if (nameless && this.waitingChars <= WAITING_CHARS_MAX) break;
      this.waiting.shift();
      out += this.closeOpen() + this.start(next);
    }
    return this.open?.sealed === true ? out + this.closeOpen() : out;
  }

  /** Text can go on in another block of its kind; a call cannot, but what is a whole JSON value has no more to come. */
  private canClose(): boolean {
    return this.open === null || this.open.kind !== "tool" || this.open.end!.whole;
  }

  private start(block: Block): string {
    this.open = block;
    this.index++;
    const { waiting } = block;
    this.waitingChars -= waiting.length;
    block.waiting = "";
    const begin = { type: "content_block_start", index: this.index, content_block: this.beginning(block) };
    return frame("content_block_start", begin) + this.deltaOf(block, waiting);
  }

  private beginning(block: Block): Record<string, unknown> {
    if (block.redacted !== null) return { type: "redacted_thinking", data: block.redacted };
    if (block.kind === "thinking") return { type: "thinking", thinking: "", signature: "" };
    if (block.kind !== "tool") return { type: "text", text: "", citations: null };
    const id = block.id === "" ? toolUseId(this.context, block.call) : block.id;
    return { type: "tool_use", id, name: this.names.get(block.name) ?? block.name, input: {} };
  }

  private deltaOf(block: Block, text: string): string {
    if (text === "") return "";
    const string = JSON.stringify(text);
    if (block.kind === "tool") return this.delta(`{"type":"input_json_delta","partial_json":${string}}`);
    if (block.kind === "thinking") return this.delta(`{"type":"thinking_delta","thinking":${string}}`);
    return this.delta(`{"type":"text_delta","text":${string}}`);
  }

  /** Put together by hand: this is what nearly all frames are. */
  private delta(json: string): string {
    return `event: content_block_delta\ndata: {"type":"content_block_delta","index":${this.index},"delta":${json}}\n\n`;
  }

  private closeOpen(): string {
    const { open } = this;
    if (open === null) return "";
    this.open = null;
    const signature = open.signature === "" ? "" : JSON.stringify(open.signature);
    const signed = signature === "" ? "" : this.delta(`{"type":"signature_delta","signature":${signature}}`);
    return signed + frame("content_block_stop", { type: "content_block_stop", index: this.index });
  }
}
