/** PURE: the words of the sandbox's page, in both languages. */

import type { Language } from "../http/accept.ts";
import type { SandboxChoice } from "./sandbox_state.ts";

export interface SandboxTexts {
  readonly lang: string;
  readonly test: string;
  readonly noMoney: string;
  /** `{merchant}` stands for who sells. */
  readonly payTo: string;
  readonly decide: string;
  readonly later: string;
  readonly card: string;
  readonly cardWorks: string;
  readonly cardDeclines: string;
  readonly choices: Readonly<Record<SandboxChoice, { readonly name: string; readonly what: string }>>;
  readonly state: Readonly<Record<"paid" | "declined" | "closed" | "expired" | "approved", string>>;
  readonly refunded: string;
  readonly disputed: Readonly<Record<"open" | "won" | "lost", string>>;
  readonly back: string;
  readonly missing: { readonly title: string; readonly text: string };
  readonly refused: { readonly title: string; readonly text: string };
}

const EN: SandboxTexts = {
  lang: "en",
  test: "TEST",
  noMoney: "This is the sandbox. No money moves, whatever you press.",
  payTo: "Pay {merchant}",
  decide: "What shall happen?",
  later: "What shall happen next?",
  card: "The card that is saved for automatic top-ups",
  cardWorks: "Test card 4242: works",
  cardDeclines: "Test card 0341: is declined when it is charged later",
  choices: {
    approve: { name: "Approve", what: "Paid at once, and told once." },
    decline: { name: "Decline", what: "The card is declined." },
    approve_later: { name: "Approve after 10 seconds", what: "You go back while the payment is still pending." },
    approve_repeatedly: { name: "Approve and notify 5 times", what: "The same notification comes five times at once." },
    approve_silently: { name: "Approve but never notify", what: "Nobody is told: it has to be found by asking." },
    cancel: { name: "Cancel", what: "You go back without paying." },
    refund: { name: "Refund", what: "As if made at the processor's dashboard." },
    refund_half: { name: "Refund half", what: "As if made at the processor's dashboard." },
    dispute: { name: "Dispute", what: "As if the payer asked the bank for the money." },
    win_dispute: { name: "Win the dispute", what: "The bank decides for the merchant." },
    lose_dispute: { name: "Lose the dispute", what: "The bank decides for the payer." },
  },
  state: {
    paid: "This test payment is paid.",
    declined: "This test payment was declined.",
    closed: "This test payment was canceled.",
    expired: "The time to pay is over.",
    approved: "Approved. It will be paid within 10 seconds.",
  },
  refunded: "Given back so far",
  disputed: { open: "It is disputed.", won: "A dispute was won.", lost: "A dispute was lost." },
  back: "Back to {merchant}",
  missing: {
    title: "There is no such test payment",
    text: "The address is wrong, or the sandbox is switched off. Nothing was paid.",
  },
  refused: {
    title: "That did not come from this page",
    text: "Open the payment again, and decide there. Nothing was changed.",
  },
};

const ZH: SandboxTexts = {
  lang: "zh-Hans",
  test: "测试 TEST",
  noMoney: "这是沙盒环境。无论点击什么，都不会产生真实扣款。",
  payTo: "向 {merchant} 付款",
  decide: "请选择支付结果",
  later: "接下来要发生什么？",
  card: "为自动充值保存的银行卡",
  cardWorks: "测试卡 4242：正常扣款",
  cardDeclines: "测试卡 0341：之后扣款时被拒绝",
  choices: {
    approve: { name: "支付成功", what: "立即支付，并通知一次。" },
    decline: { name: "支付失败", what: "银行卡被拒绝。" },
    approve_later: { name: "10 秒后支付成功", what: "返回商户时，支付仍在处理中。" },
    approve_repeatedly: { name: "支付成功并通知 5 次", what: "同一条通知会同时送达五次。" },
    approve_silently: { name: "支付成功但不通知", what: "不发送通知，只能通过查询得知。" },
    cancel: { name: "取消", what: "不付款，直接返回。" },
    refund: { name: "退款", what: "相当于在支付平台后台操作。" },
    refund_half: { name: "退一半", what: "相当于在支付平台后台操作。" },
    dispute: { name: "发起拒付", what: "相当于付款人向银行要求退回款项。" },
    win_dispute: { name: "商户胜诉", what: "银行支持商户。" },
    lose_dispute: { name: "商户败诉", what: "银行支持付款人。" },
  },
  state: {
    paid: "该测试付款已支付。",
    declined: "该测试付款已被拒绝。",
    closed: "该测试付款已取消。",
    expired: "付款时间已过。",
    approved: "已确认，将在 10 秒内完成支付。",
  },
  refunded: "已退款",
  disputed: { open: "付款存在争议。", won: "争议已胜诉。", lost: "争议已败诉。" },
  back: "返回 {merchant}",
  missing: { title: "没有这笔测试付款", text: "地址有误，或沙盒已关闭。没有产生任何付款。" },
  refused: { title: "该请求并非来自本页面", text: "请重新打开付款页面再作选择。没有任何更改。" },
};

export const SANDBOX_TEXTS: Readonly<Record<Language, SandboxTexts>> = { en: EN, zh: ZH };
