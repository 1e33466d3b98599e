// Package tokenbill is the Go SDK of TokenBill's control plane: typed clients of the public API and a few helpers.
package tokenbill

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	tokenbillv1 "github.com/tokenbill/tokenbill/clients/go/gen/tokenbill/v1"
	"github.com/tokenbill/tokenbill/clients/go/gen/tokenbill/v1/tokenbillv1connect"
)

// Client holds one client for each service. It is safe for concurrent use.
type Client struct {
	Providers        tokenbillv1connect.ProviderServiceClient
	VirtualEndpoints tokenbillv1connect.VirtualEndpointServiceClient
	LogicalModels    tokenbillv1connect.LogicalModelServiceClient
	Usage            tokenbillv1connect.UsageServiceClient
	Merchants        tokenbillv1connect.MerchantServiceClient
	Checkout         tokenbillv1connect.CheckoutServiceClient
	CreditPacks      tokenbillv1connect.CreditPackServiceClient
	PaymentAccounts  tokenbillv1connect.PaymentAccountServiceClient
	AutoTopUps       tokenbillv1connect.AutoTopUpServiceClient
	Webhooks         tokenbillv1connect.WebhookServiceClient
	// Audit is for the operator.
	Audit tokenbillv1connect.AuditServiceClient
}

type settings struct {
	httpClient connect.HTTPClient
	options    []connect.ClientOption
}

// Option changes how a Client talks.
type Option func(*settings)

// WithHTTPClient sets the HTTP client, for time limits, proxies and TLS. The default is http.DefaultClient.
func WithHTTPClient(client connect.HTTPClient) Option {
	return func(s *settings) { s.httpClient = client }
}

// WithConnectOptions adds options of connect-go, such as connect.WithGRPC().
func WithConnectOptions(options ...connect.ClientOption) Option {
	return func(s *settings) { s.options = append(s.options, options...) }
}

// New returns a Client of the control plane at baseURL, such as "http://127.0.0.1:8080". apiToken is a merchant's API
// token, or the operator's; or the secret of one Checkout Session, which opens that session alone.
func New(baseURL, apiToken string, options ...Option) *Client {
	s := settings{httpClient: http.DefaultClient}
	for _, option := range options {
		option(&s)
	}
	url := strings.TrimRight(baseURL, "/")
	all := append([]connect.ClientOption{connect.WithInterceptors(bearer("Bearer " + apiToken))}, s.options...)
	return &Client{
		Providers:        tokenbillv1connect.NewProviderServiceClient(s.httpClient, url, all...),
		VirtualEndpoints: tokenbillv1connect.NewVirtualEndpointServiceClient(s.httpClient, url, all...),
		LogicalModels:    tokenbillv1connect.NewLogicalModelServiceClient(s.httpClient, url, all...),
		Usage:            tokenbillv1connect.NewUsageServiceClient(s.httpClient, url, all...),
		Merchants:        tokenbillv1connect.NewMerchantServiceClient(s.httpClient, url, all...),
		Checkout:         tokenbillv1connect.NewCheckoutServiceClient(s.httpClient, url, all...),
		CreditPacks:      tokenbillv1connect.NewCreditPackServiceClient(s.httpClient, url, all...),
		PaymentAccounts:  tokenbillv1connect.NewPaymentAccountServiceClient(s.httpClient, url, all...),
		AutoTopUps:       tokenbillv1connect.NewAutoTopUpServiceClient(s.httpClient, url, all...),
		Webhooks:         tokenbillv1connect.NewWebhookServiceClient(s.httpClient, url, all...),
		Audit:            tokenbillv1connect.NewAuditServiceClient(s.httpClient, url, all...),
	}
}

// bearer is the Authorization header of every call.
type bearer string

func (b bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		request.Header().Set("Authorization", string(b))
		return next(ctx, request)
	}
}

func (b bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		conn.RequestHeader().Set("Authorization", string(b))
		return conn
	}
}

func (b bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// Info returns what TokenBill said about an error, or nil if the error is not one of TokenBill's.
func Info(err error) *tokenbillv1.ErrorInfo {
	var connectErr *connect.Error
	if !errors.As(err, &connectErr) {
		return nil
	}
	for _, detail := range connectErr.Details() {
		value, valueErr := detail.Value()
		if info, ok := value.(*tokenbillv1.ErrorInfo); ok && valueErr == nil {
			return info
		}
	}
	return nil
}

// Reason returns the machine-readable reason of an error, or ERROR_REASON_UNSPECIFIED if there is none.
func Reason(err error) tokenbillv1.ErrorReason {
	return Info(err).GetReason()
}

// Paginate ranges over all items of a list. fetch gets the page token ("" first) and returns a page and the next token
// ("" at the end). The range ends after the first error.
func Paginate[T any](ctx context.Context, fetch func(ctx context.Context, pageToken string) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for token := ""; ; {
			items, next, err := fetch(ctx, token)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}
