/** PURE: the path under which a proxy has put the whole, from the path of a page: `/pay` of `/pay/checkout/cs_…`, mostly empty. */

const PAGE = /^((?:\/[^/]+)*?)\/checkout(?:\/[^/]*)?\/?$/;

export function basePath(pathname: string): string {
  return PAGE.exec(pathname)?.[1] ?? "";
}
