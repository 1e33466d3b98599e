App({
  globalData: {
    // Listed at mp.weixin.qq.com as a request domain.
    backend: "https://shop.example.com",
  },
});
