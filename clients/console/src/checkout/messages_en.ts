/** PURE: what the checkout page says in English. The other languages' tables have this one's type. */

export const en = {
  title: "Top up",
  titleFor: (name: string) => `Top up ${name}`,
  loading: "Loading…",
  openedLoading: "Opening the checkout…",
  footer: "Checkout by TokenBill",
  reference: "Reference",

  test: "TEST",
  testText: "No real money moves.",

  wallet: "Wallet",
  creditsRemaining: "Credits remaining",
  creditBudget: "Credit Budget",
  spent30: "Spent in 30 days",
  requests30: "Requests in 30 days",
  debt: "Debt",
  debtText: "Taken from the next Credits that arrive.",
  credits: (count: string) => `${count} Credits`,
  creditsWord: "Credits",

  choosePack: "Choose a pack",
  choosePackAgain: "Choose again",
  bonus: (count: string) => `+${count} bonus`,
  ownAmount: "Your own amount",
  ownAmountText: (min: string, max: string) => `From ${min} to ${max}`,
  amountIn: (currency: string) => `Amount in ${currency}`,
  amountEmpty: "Enter an amount.",
  amountMalformed: "Enter a number, such as 25.",
  amountTooFine: (digits: number) =>
    digits === 0 ? "Enter a whole number." : `Enter no more than ${digits} digits after the point.`,
  amountTooSmall: (min: string) => `The least is ${min}.`,
  amountTooLarge: (max: string) => `The most is ${max}.`,
  youGet: "You get",
  noPacks: "Nothing is for sale here at the moment.",
  noPacksText: "Please ask the merchant.",

  payWith: "Pay with",
  noMethods: "This pack cannot be paid for on this page. Please choose another, or ask the merchant.",
  methodStripe: "Card and other ways",
  methodStripeText: "You continue on Stripe’s secure page.",
  methodWechat: "WeChat Pay",
  methodWechatNativeText: "You scan a QR code with WeChat.",
  methodWechatJsapiText: "WeChat asks you to confirm.",
  methodSandbox: "Test payment",
  methodSandboxText: "You continue on a page for trying things out.",

  autoTopUp: "Top up automatically from now on",
  autoTopUpText: (threshold: string, price: string, credits: string, dailyMax: string, merchant: string) =>
    `I allow ${merchant} to save my payment method and to charge it ${price} for ${credits} Credits whenever fewer than ${threshold} Credits remain, at most ${dailyMax} a day, until I switch it off.`,
  autoTopUpOn: "Automatic top-up is on",
  autoTopUpOnText: (threshold: string, dailyMax: string) =>
    `When fewer than ${threshold} Credits remain, at most ${dailyMax} a day.`,
  autoTopUpOff: "Switch off",
  autoTopUpOffSure: "Switch off and forget the payment method?",
  autoTopUpOffYes: "Yes, switch off",
  autoTopUpOffNo: "Keep it",
  autoTopUpOffDone: "Automatic top-up is off.",

  pay: (price: string) => `Pay ${price}`,
  payPlain: "Pay",
  paying: "One moment…",
  cancel: "Cancel",
  cancelAll: "Cancel the top-up",
  keepWaiting: "Back to the payment",

  declined: "The payment was declined.",
  declinedText: "You were not charged. Try again, or pay another way.",
  declinedFunds: "There was not enough money. You were not charged.",
  declinedExpired: "The card has expired. You were not charged.",
  declinedCode: "The card’s details were not right. You were not charged.",
  refused: "The payment could not be started.",
  refusedText: "You were not charged. Try again, or pay another way.",
  serverFailed: "Something went wrong on our side.",
  serverFailedText: "You were not charged by this. Please try again.",
  invalidText: "Please check what you have entered.",

  scanTitle: "Scan with WeChat",
  scanText: "Open WeChat, choose Scan, and point the camera at the code.",
  scanPhoneSteps: [
    "Take a screenshot of the code.",
    "Open WeChat and choose Scan.",
    "Choose the screenshot from your photos, and pay.",
  ],
  scanInWechatText: "Press and hold the code, then choose to scan it.",
  scanAlt: (price: string) => `QR code for paying ${price} with WeChat`,
  scanNoCode: "The QR code could not be shown. Please choose another way to pay.",
  iHavePaid: "I have paid",
  checking: "Checking…",
  waitingForPayment: "Waiting for the payment. This page notices by itself when you have paid.",
  validUntil: (time: string) => `Can be paid until ${time}.`,

  leavingTitle: "Taking you to the payment",
  leavingText: "If nothing happens, continue here.",
  continuePayment: "Continue to the payment",
  blockedTitle: "This payment cannot be opened",
  blockedText: "Its address is not safe. Please choose another way to pay, or ask the merchant.",

  wechatTitle: "Confirm in WeChat",
  wechatText: "WeChat shows a window. Confirm the payment there.",
  wechatCancel: "WeChat’s window was closed before you paid.",
  wechatFail: "WeChat could not make the payment.",
  wechatAbsent: "WeChat did not answer. Please open this page inside WeChat.",
  wechatAgain: "Open WeChat’s window again",

  waitingTitle: "Your payment is not finished yet",
  waitingText: "If you have paid already, this takes a moment. If not, go on where you stopped.",
  chooseOther: "Choose another pack or way to pay",

  settlingTitle: "Payment received",
  settlingText: "Your Credits are on the way. This takes a moment.",

  problemTitle: "Payment received, Credits still to come",
  problemText: (merchant: string) =>
    `Your money has arrived, but the Credits could not be added by themselves. Please do not pay again. ${merchant} will look at it; give them the reference below if you ask.`,

  successTitle: "Payment received",
  successAmount: (credits: string) => `+${credits} Credits`,
  newBalance: "New balance",
  successText: "The Credits can be used at once.",
  successClose: "You can close this page and go on where you stopped.",
  paidTwice:
    "This was paid more than once. All Credits were added; ask the merchant for a refund if you did not mean to.",
  backTo: (host: string) => `Back to ${host}`,
  backIn: (seconds: number) => `You go back automatically in ${seconds} s.`,
  stay: "Stay here",
  topUpAgain: "Top up again",

  expiredTitle: "This checkout has expired",
  expiredText: "Nobody paid in time, and nothing was charged. If you have paid nevertheless, the Credits still arrive.",
  startAgain: "Start again",

  canceledTitle: "The top-up was cancelled",
  canceledText: "Nothing was charged. If you have paid nevertheless, the Credits still arrive.",

  refundedTitle: "The payment was refunded",
  refundedPartTitle: "The payment was refunded in part",
  refundedText: (amount: string) => `${amount} went back, and as large a part of the Credits was taken back.`,

  disputedTitle: "This payment is disputed",
  disputedText: (merchant: string) =>
    `The payment was disputed at the bank. Until that is settled, the Credits cannot be used. Please talk to ${merchant}.`,

  unknownTitle: "This page is out of date",
  unknownText: "Reload it to see how the payment stands.",
  reload: "Reload",

  lost: "No connection. Trying again…",
  lostKept: "Nothing is lost, and nothing is paid twice.",
  throttledTitle: "Too many tries",
  throttledAt: (time: string) => `Please try again after ${time}.`,
  throttledText: "Please try again in a few minutes.",
  tryAgain: "Try again",

  closedTitle: "This checkout cannot be opened here",
  closedText:
    "A checkout opens only in the browser that began it. Follow the link from your app once more to start a new one. If you have paid already, your Credits arrive by themselves.",
  linkTitle: "This link does not work",
  linkText: "It may have been copied incompletely, or what it led to is no longer there. Please ask for a new link.",

  pack: "Pack",
  price: "Price",
  paidAt: "Paid",
  merchantFallback: "The merchant",
} as const;

/** Texts may differ, what is filled into them may not. */
export type CheckoutMessages = {
  readonly [K in keyof typeof en]: (typeof en)[K] extends (...args: infer A) => string
    ? (...args: A) => string
    : (typeof en)[K] extends readonly string[]
      ? readonly string[]
      : string;
};
