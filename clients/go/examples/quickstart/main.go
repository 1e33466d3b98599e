// Quickstart sets up everything that a first answer needs and prints the access key.
// It reads TOKENBILL_URL, TOKENBILL_TOKEN, UPSTREAM_URL and UPSTREAM_KEY.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"connectrpc.com/connect"

	tokenbill "github.com/tokenbill/tokenbill/clients/go"
	v1 "github.com/tokenbill/tokenbill/clients/go/gen/tokenbill/v1"
)

func main() {
	ctx := context.Background()
	tb := tokenbill.New(os.Getenv("TOKENBILL_URL"), os.Getenv("TOKENBILL_TOKEN"))
	provider := must(tb.Providers.CreateProvider(ctx, connect.NewRequest(&v1.CreateProviderRequest{Name: "go-upstream", Format: v1.ProviderFormat_PROVIDER_FORMAT_OPENAI, BaseUrl: os.Getenv("UPSTREAM_URL"), Credentials: &v1.ProviderCredentials{ApiKey: os.Getenv("UPSTREAM_KEY")}}))).Provider
	price := &v1.CreatePhysicalModelRequest_SimplePrice{SimplePrice: &v1.SimplePrice{CreditPerUnit: "0.05", PerUnits: 1000, Unit: v1.UnitKind_UNIT_KIND_TOKENS}}
	model := must(tb.Providers.CreatePhysicalModel(ctx, connect.NewRequest(&v1.CreatePhysicalModelRequest{ProviderId: provider.Id, UpstreamName: "gpt-5-mini", Name: "go-model", Price: price}))).PhysicalModel
	ve := must(tb.VirtualEndpoints.CreateVirtualEndpoint(ctx, connect.NewRequest(&v1.CreateVirtualEndpointRequest{Name: "Go", CreditBudget: "10"}))).VirtualEndpoint
	must(tb.LogicalModels.CreateLogicalModel(ctx, connect.NewRequest(&v1.CreateLogicalModelRequest{VeId: ve.Id, Name: "chat", Targets: []*v1.Target{{PhysicalModelId: model.Id, Weight: 1}}})))
	key := must(tb.VirtualEndpoints.CreateAccessKey(ctx, connect.NewRequest(&v1.CreateAccessKeyRequest{VeId: ve.Id})))
	balance := must(tb.VirtualEndpoints.GetBalance(ctx, connect.NewRequest(&v1.GetBalanceRequest{VeId: ve.Id}))).Wallet
	fmt.Printf("%s %s %s\n", ve.Id, key.Secret, balance.CreditRemaining)
}

func must[T any](response *connect.Response[T], err error) *T {
	if err != nil {
		log.Fatalf("%s: %v", tokenbill.Reason(err), err)
	}
	return response.Msg
}
