// Tops the user's wallet up. The steps: open a session, wx.login, start the payment, WeChat's own window, ask how it ended.

const CHECKS_MAX = 20;
const CHECK_EVERY_MS = 1500;

/** The user closed WeChat's window: no failure. */
const CANCELED = -2;

function call(path, data) {
  const { backend } = getApp().globalData;
  return new Promise((resolve, reject) => {
    wx.request({
      url: backend + path,
      method: "POST",
      data,
      success: ({ statusCode, data: answer }) =>
        statusCode === 200 ? resolve(answer) : reject(new Error(`${path} answered ${statusCode}`)),
      fail: ({ errMsg }) => reject(new Error(errMsg)),
    });
  });
}

function login() {
  return new Promise((resolve, reject) => {
    wx.login({ success: ({ code }) => resolve(code), fail: ({ errMsg }) => reject(new Error(errMsg)) });
  });
}

/** Resolves to true when WeChat says that it was paid, which the backend still has to confirm; false: closed by the user. */
function openWindow(action) {
  return new Promise((resolve, reject) => {
    const ends = {
      success: () => resolve(true),
      fail: ({ errCode, errMsg }) =>
        errCode === CANCELED || /cancel/.test(errMsg) ? resolve(false) : reject(new Error(errMsg)),
    };
    if (action.kind === "virtual") {
      if (wx.requestVirtualPayment === undefined) return reject(new Error("the base library is older than 2.19.2"));
      // signData is the very text that was signed: not to be parsed and written again.
      const { mode, signData, paySig, signature } = action;
      wx.requestVirtualPayment({ mode, signData, paySig, signature, ...ends });
    } else {
      const { timeStamp, nonceStr, package: prepay, signType, paySign } = action;
      wx.requestPayment({ timeStamp, nonceStr, package: prepay, signType, paySign, ...ends });
    }
  });
}

Page({
  data: { sessionId: "", packs: [], packId: "", creditRemaining: "", canPay: false, isBusy: false, message: "" },

  onLoad() {
    this.open();
  },

  async open() {
    try {
      const { sessionId, packs, canPay, creditRemaining } = await call("/mini/open", {});
      this.setData({ sessionId, packs, canPay, creditRemaining, packId: packs.length > 0 ? packs[0].id : "" });
    } catch {
      this.setData({ message: "暂时无法打开，请稍后重试。" });
    }
  },

  choose({ detail }) {
    this.setData({ packId: detail.value });
  },

  async pay() {
    if (this.data.isBusy || this.data.packId === "") return;
    this.setData({ isBusy: true, message: "" });
    const { sessionId, packId } = this.data;
    try {
      const code = await login();
      const action = await call("/mini/pay", { sessionId, packId, code });
      const wasPaid = action.kind === "none" || (await openWindow(action));
      this.setData({ message: wasPaid ? "正在确认到账…" : "已取消付款。" });
      if (wasPaid) await this.confirm(sessionId);
    } catch {
      this.setData({ message: "付款未完成，请重试。" });
    }
    this.setData({ isBusy: false });
  },

  /** What WeChat's window says is not believed: the backend asks, until the Credits are there. */
  async confirm(sessionId) {
    for (let i = 0; i < CHECKS_MAX; i++) {
      const { isDone, creditsGranted } = await call("/mini/check", { sessionId });
      if (isDone) {
        this.setData({ message: `充值成功：+${creditsGranted} Credits` });
        return this.open();
      }
      await new Promise((resolve) => setTimeout(resolve, CHECK_EVERY_MS));
    }
    this.setData({ message: "到账需要一点时间，稍后会自动完成。" });
  },
});
