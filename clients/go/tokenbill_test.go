package tokenbill

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"testing"

	"connectrpc.com/connect"

	tokenbillv1 "github.com/tokenbill/tokenbill/clients/go/gen/tokenbill/v1"
	"github.com/tokenbill/tokenbill/clients/go/gen/tokenbill/v1/tokenbillv1connect"
)

// merchants answers with the Authorization header it saw, and refuses the token "bad".
type merchants struct {
	tokenbillv1connect.UnimplementedMerchantServiceHandler
}

func (merchants) GetMerchant(_ context.Context, request *connect.Request[tokenbillv1.GetMerchantRequest]) (*connect.Response[tokenbillv1.GetMerchantResponse], error) {
	seen := request.Header().Get("Authorization")
	if seen == "Bearer bad" {
		err := connect.NewError(connect.CodeUnauthenticated, errors.New("no"))
		detail, _ := connect.NewErrorDetail(&tokenbillv1.ErrorInfo{Reason: tokenbillv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, Domain: "tokenbill"})
		err.AddDetail(detail)
		return nil, err
	}
	return connect.NewResponse(&tokenbillv1.GetMerchantResponse{Merchant: &tokenbillv1.Merchant{Name: seen}}), nil
}

func serve(t *testing.T) string {
	mux := http.NewServeMux()
	mux.Handle(tokenbillv1connect.NewMerchantServiceHandler(merchants{}))
	mux.Handle(tokenbillv1connect.NewCheckoutServiceHandler(checkouts{}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func TestTokenGoesWithEveryCall(t *testing.T) {
	answer, err := New(serve(t)+"/", "secret").Merchants.GetMerchant(t.Context(), connect.NewRequest(&tokenbillv1.GetMerchantRequest{}))
	if err != nil || answer.Msg.Merchant.Name != "Bearer secret" {
		t.Fatal(answer, err)
	}
}

// checkouts answers with the Authorization header it saw as the session's id.
type checkouts struct {
	tokenbillv1connect.UnimplementedCheckoutServiceHandler
}

func (checkouts) GetCheckoutSession(_ context.Context, request *connect.Request[tokenbillv1.GetCheckoutSessionRequest]) (*connect.Response[tokenbillv1.GetCheckoutSessionResponse], error) {
	session := &tokenbillv1.CheckoutSession{Id: request.Header().Get("Authorization")}
	return connect.NewResponse(&tokenbillv1.GetCheckoutSessionResponse{CheckoutSession: session}), nil
}

func TestEveryServiceHasAClient(t *testing.T) {
	client := reflect.ValueOf(*New(serve(t), "secret"))
	for i := range client.NumField() {
		if client.Field(i).IsNil() {
			t.Error(client.Type().Field(i).Name)
		}
	}
}

func TestSecretOfASession(t *testing.T) {
	answer, err := New(serve(t), "tbc_secret").Checkout.GetCheckoutSession(t.Context(), connect.NewRequest(&tokenbillv1.GetCheckoutSessionRequest{}))
	if err != nil || answer.Msg.CheckoutSession.Id != "Bearer tbc_secret" {
		t.Fatal(answer, err)
	}
}

func TestReason(t *testing.T) {
	_, err := New(serve(t), "bad").Merchants.GetMerchant(t.Context(), connect.NewRequest(&tokenbillv1.GetMerchantRequest{}))
	if Reason(err) != tokenbillv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED || Info(err).Domain != "tokenbill" {
		t.Fatal(err)
	}
	if Reason(errors.New("another")) != tokenbillv1.ErrorReason_ERROR_REASON_UNSPECIFIED || Info(nil) != nil {
		t.Fatal("a foreign error has no reason")
	}
}

func TestPaginate(t *testing.T) {
	pages := map[string][]int{"": {1, 2}, "a": {}, "b": {3}}
	next := map[string]string{"": "a", "a": "b", "b": ""}
	var got []int
	for item, err := range Paginate(t.Context(), func(_ context.Context, token string) ([]int, string, error) {
		return pages[token], next[token], nil
	}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, item)
	}
	if !slices.Equal(got, []int{1, 2, 3}) {
		t.Fatal(got)
	}
	calls := 0
	for _, err := range Paginate(t.Context(), func(context.Context, string) ([]int, string, error) {
		calls++
		return nil, "", fmt.Errorf("down")
	}) {
		if err == nil {
			t.Fatal("the error is lost")
		}
	}
	if calls != 1 {
		t.Fatal(calls)
	}
}
